//! What the function `docs` serves: openapi.yaml as JSON, in the order of the file, and Swagger UI's files, compressed.
use flate2::{Compression, write::GzEncoder};
use std::{
    env,
    error::Error,
    fs,
    io::{Cursor, Read as _, Write as _},
    path::PathBuf,
};
use utoipa_swagger_ui_vendored::SWAGGER_UI_VENDORED;

const OPENAPI: &str = "../openapi.yaml";

fn main() -> Result<(), Box<dyn Error>> {
    println!("cargo::rerun-if-changed=build.rs");
    println!("cargo::rerun-if-changed={OPENAPI}");
    let out = PathBuf::from(env::var_os("OUT_DIR").ok_or("Cargo sets OUT_DIR")?);

    let openapi: serde_json::Value = serde_saphyr::from_str(&fs::read_to_string(OPENAPI)?)?;
    fs::write(out.join("openapi.json"), openapi.to_string())?;

    let mut archive = zip::ZipArchive::new(Cursor::new(SWAGGER_UI_VENDORED))?;
    for name in ["swagger-ui-bundle.js", "swagger-ui.css"] {
        let in_dist = format!("/dist/{name}");
        let paths = archive.file_names().filter_map(Result::ok).map(|path| path.into_owned());
        let path = { paths }.find(|path| path.ends_with(&in_dist)).ok_or(format!("Swagger UI has no {name}"))?;
        let mut content = Vec::new();
        archive.by_name(&path)?.read_to_end(&mut content)?;
        let mut compressed = GzEncoder::new(Vec::new(), Compression::best());
        compressed.write_all(&content)?;
        fs::write(out.join(format!("{name}.gz")), compressed.finish()?)?;
    }
    Ok(())
}
