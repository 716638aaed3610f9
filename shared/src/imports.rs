//! Finds which module imports which in each crate. Tests fail on import cycles, and on imports through the crate's
//! root.
//!
//! ```sh
//! cargo test -p shared --lib imports -- --nocapture   # prints the graphs
//! ```
//!
//! A path counts as an import of the file of its deepest module, re-exports included: `crate::tasks::Task` imports
//! tasks.rs, and `crate::Task` imports lib.rs. A top-level module includes everything below it.
use std::{
    collections::{BTreeMap, BTreeSet},
    fs,
    path::{Path, PathBuf},
};

/// The path of a module, such as `["tasks", "page"]`; empty for the crate's root.
type Module = Vec<String>;
/// The modules that each module imports.
type Graph = BTreeMap<Module, BTreeSet<Module>>;

/// Reads the source of each module of a crate.
fn read(folder: &Path, module: &[String], sources: &mut BTreeMap<Module, String>) {
    let mut entries: Vec<PathBuf> = fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().path()).collect();
    entries.sort();
    for path in entries {
        let name = path.file_stem().unwrap().to_str().unwrap().to_owned();
        let module = if module.is_empty() && matches!(&*name, "lib" | "main") || name == "mod" {
            module.to_vec()
        } else {
            [module, &[name]].concat()
        };
        if path.is_dir() {
            read(&path, &module, sources);
        } else if path.extension().is_some_and(|extension| extension == "rs") {
            // The example sources in this file are not imports.
            let text = if module == ["imports"] { String::new() } else { fs::read_to_string(path).unwrap() };
            sources.entry(module).or_default().push_str(&text);
        }
    }
}

/// Splits a source into words and punctuation, without comments.
fn tokens(source: &str) -> Vec<String> {
    let mut tokens: Vec<String> = Vec::new();
    let code = source.lines().filter(|line| !line.trim_start().starts_with("//"));
    for character in code.flat_map(|line| line.chars().chain(['\n'])) {
        let is_word = |character: char| character.is_alphanumeric() || character == '_';
        match tokens.last_mut() {
            Some(last) if is_word(character) && last.chars().all(is_word) => last.push(character),
            Some(last) if character == ':' && last == ":" => last.push(character),
            _ => tokens.push(character.to_string()),
        }
    }
    tokens.retain(|token| !token.trim().is_empty());
    tokens
}

/// Returns the paths that begin at `tokens[at]`, with a tree `a::{b, c::d}` expanded, and the position after them.
fn paths(tokens: &[String], at: usize) -> (Vec<Module>, usize) {
    let (mut path, mut at) = (vec![tokens[at].clone()], at + 1);
    while tokens.get(at).is_some_and(|token| token == "::") {
        match tokens.get(at + 1).map(String::as_str) {
            Some("{") => {
                let mut all = Vec::new();
                at += 2;
                while tokens.get(at).is_some_and(|token| token != "}") {
                    if tokens[at] == "," {
                        at += 1;
                        continue;
                    }
                    let (tails, next) = paths(tokens, at);
                    all.extend(tails.into_iter().map(|tail| [path.clone(), tail].concat()));
                    // Skip `as name`.
                    at = next;
                    while tokens.get(at).is_some_and(|token| token != "," && token != "}") {
                        at += 1;
                    }
                }
                return (all, at + 1);
            }
            Some(word) => path.push(word.to_owned()),
            None => break,
        }
        at += 2;
    }
    (vec![path], at)
}

/// Returns the modules that each file imports.
fn imports(sources: &BTreeMap<Module, String>) -> Graph {
    let deepest = |path: &[String]| {
        let length = (0..=path.len()).rev().find(|&length| sources.contains_key(&path[..length]));
        path[..length.unwrap_or_default()].to_vec()
    };
    let mut graph = Graph::new();
    for (module, source) in sources {
        let tokens = tokens(source);
        let found = graph.entry(module.clone()).or_default();
        for at in 0..tokens.len() {
            let begins = tokens.get(at + 1).is_some_and(|token| token == "::") && (at == 0 || tokens[at - 1] != "::");
            if !begins {
                continue;
            }
            for path in paths(&tokens, at).0 {
                let child = [&module[..], &path[..1]].concat();
                let whole = match path[0].as_str() {
                    "crate" => path[1..].to_vec(),
                    "self" => [module, &path[1..]].concat(),
                    // In a file's own tests, `super` is the file.
                    "super" if path.get(1).is_some_and(|name| name == "*") => continue,
                    "super" => [&module[..module.len().saturating_sub(1)], &path[1..]].concat(),
                    _ if sources.contains_key(&child) => [&module[..], &path].concat(),
                    _ => continue,
                };
                found.insert(deepest(&whole));
            }
        }
        found.remove(module);
    }
    graph
}

/// Merges the modules of a graph by group.
fn merge(graph: &Graph, group: impl Fn(&Module) -> Module) -> Graph {
    let mut top_level = Graph::new();
    for (from, targets) in graph {
        let module = top_level.entry(group(from)).or_default();
        module.extend(targets.iter().map(&group).filter(|to| *to != group(from)));
    }
    top_level
}

/// Returns the groups of modules that import each other in a cycle.
fn cycles(graph: &Graph) -> Vec<Vec<String>> {
    let reach = |from: &Module| {
        let (mut seen, mut next) = (BTreeSet::new(), vec![from.clone()]);
        while let Some(module) = next.pop() {
            next.extend(graph.get(&module).into_iter().flatten().filter(|to| seen.insert((*to).clone())).cloned());
        }
        seen
    };
    let reached: BTreeMap<_, _> = graph.keys().map(|module| (module.clone(), reach(module))).collect();
    let mut cycles = BTreeSet::new();
    for (module, seen) in &reached {
        if seen.contains(module) {
            let members = seen.iter().filter(|other| reached.get(*other).is_some_and(|it| it.contains(module)));
            cycles.insert(members.map(name).collect::<Vec<_>>());
        }
    }
    cycles.into_iter().collect()
}

fn name(module: &Module) -> String {
    if module.is_empty() { "(root)".to_owned() } else { module.join("/") }
}

fn print(title: &str, graph: &Graph) {
    let arrows: usize = graph.values().map(BTreeSet::len).sum();
    println!("{title}: {} with {arrows} arrows, cycles: {:?}", graph.len(), cycles(graph));
    for (from, targets) in graph {
        println!("  {} -> {}", name(from), targets.iter().map(name).collect::<Vec<_>>().join(", "));
    }
}

/// Returns the graphs of a crate's files and of its top-level modules. A library's root re-exports the public items of
/// the others, so it imports everything.
fn graphs(folder: &Path) -> (Graph, Graph) {
    let mut sources = BTreeMap::new();
    read(folder, &[], &mut sources);
    let files = imports(&sources);
    let top_level = merge(&files, |module| module.iter().take(1).cloned().collect());
    (files, top_level)
}

/// The crates that are checked. A `main.rs` imports the top-level modules, and none of them imports it.
const CRATES: [&str; 8] = ["shared", "functions", "migrate", "migrations", "testing", "xtask", "devtools", "bench"];

#[test]
fn no_file_or_top_level_module_imports_in_a_cycle_or_through_the_root() {
    let workspace = Path::new(env!("CARGO_MANIFEST_DIR")).parent().unwrap();
    for name in CRATES {
        let (files, top_level) = graphs(&workspace.join(name).join("src"));
        print(&format!("{name}: files"), &files);
        print(&format!("{name}: top-level modules"), &top_level);
        assert!(!files.is_empty(), "{name}: nothing was read");
        assert_eq!(cycles(&files), Vec::<Vec<String>>::new(), "{name}: files that import each other in a cycle");
        assert_eq!(
            cycles(&top_level),
            Vec::<Vec<String>>::new(),
            "{name}: top-level modules that import each other in a cycle"
        );
        let importers = files.iter().filter(|(_, targets)| targets.contains(&Module::new()));
        let importers: Vec<_> = importers.map(|(from, _)| self::name(from)).collect();
        assert_eq!(
            importers,
            Vec::<String>::new(),
            "{name}: these import through the crate's root; import from the defining file instead"
        );
    }
}

#[test]
fn cycles_are_found_in_every_form_of_import() {
    let sources = |files: &[(&str, &str)]| -> BTreeMap<Module, String> {
        files
            .iter()
            .map(|(name, text)| {
                (name.split('/').filter(|it| !it.is_empty()).map(str::to_owned).collect(), (*text).to_owned())
            })
            .collect()
    };
    let cycles_of = |files: &[(&str, &str)]| cycles(&imports(&sources(files))).concat().join(" ");
    assert_eq!(cycles_of(&[("", "mod a; mod b;"), ("a", "use crate::b::B;"), ("b", "")]), "");
    assert_eq!(cycles_of(&[("", ""), ("a", "use crate::b::B;"), ("b", "fn b() { crate::a::a() }")]), "a b");
    assert_eq!(
        cycles_of(&[("", "pub use a::A;"), ("a", "use crate::{b::{B as C}};"), ("b", "use crate::A;")]),
        "(root) a b"
    );
    let parent_and_child = [("", ""), ("a", "mod b; pub use b::B;"), ("a/b", "use super::A; use std::fmt;")];
    assert_eq!(cycles_of(&parent_and_child), "a a/b");
    assert_eq!(cycles_of(&[("", ""), ("a", "// crate::b::B\nuse std::b::B;"), ("b", "use crate::a;")]), "");
}
