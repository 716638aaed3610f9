//! Minimal ELF files that declare their processor, GLIBC version and libraries, and contain no code.

/// Machine numbers in ELF headers (`EM_X86_64`, `EM_AARCH64`).
pub const X86_64: u16 = 62;
pub const ARM64: u16 = 183;

const HEADER_BYTES: u64 = 64;
const PROGRAM_HEADER_BYTES: u16 = 56;
const SECTION_HEADER_BYTES: u16 = 64;
/// Type of the section with the required symbol versions (`SHT_GNU_verneed`).
const GNU_VERNEED: u32 = 0x6fff_fffe;

/// A buffer for little-endian numbers.
#[derive(Default)]
struct Bytes(Vec<u8>);

impl Bytes {
    fn u16(&mut self, numbers: &[u16]) {
        self.0.extend(numbers.iter().flat_map(|number| number.to_le_bytes()));
    }

    fn u32(&mut self, numbers: &[u32]) {
        self.0.extend(numbers.iter().flat_map(|number| number.to_le_bytes()));
    }

    fn u64(&mut self, numbers: &[u64]) {
        self.0.extend(numbers.iter().flat_map(|number| number.to_le_bytes()));
    }
}

/// Builds a program for `machine` that needs libc.so.6 in a version such as `GLIBC_2.34`, and another library.
pub fn program(machine: u16, glibc: &str, library: &str) -> Vec<u8> {
    let mut strings = b"\0libc.so.6\0".to_vec();
    let mut add = |text: &str| {
        let at = strings.len() as u32;
        strings.extend(text.bytes().chain([0]));
        at
    };
    let (version, library) = (add(glibc), add(library));
    strings.resize(strings.len().next_multiple_of(8), 0);

    let strings_at = HEADER_BYTES + 2 * u64::from(PROGRAM_HEADER_BYTES);
    let mut dynamic = Bytes::default();
    // DT_NEEDED twice, DT_STRTAB, DT_STRSZ, DT_NULL.
    dynamic.u64(&[1, 1, 1, u64::from(library), 5, strings_at, 10, strings.len() as u64, 0, 0]);
    let dynamic_at = strings_at + strings.len() as u64;
    let mut needed = Bytes::default();
    needed.u16(&[1, 1]);
    needed.u32(&[1, 16, 0, 0]);
    needed.u16(&[0, 2]);
    needed.u32(&[version, 0]);
    let needed_at = dynamic_at + dynamic.0.len() as u64;
    let sections_at = needed_at + needed.0.len() as u64;

    let mut file = Bytes(b"\x7fELF\x02\x01\x01\0\0\0\0\0\0\0\0\0".to_vec());
    // ET_DYN: a position-independent program is a shared object.
    file.u16(&[3, machine]);
    file.u32(&[1]);
    file.u64(&[0, HEADER_BYTES, sections_at]);
    file.u32(&[0]);
    file.u16(&[HEADER_BYTES as u16, PROGRAM_HEADER_BYTES, 2, SECTION_HEADER_BYTES, 2, 0]);
    // PT_LOAD of the whole file, and PT_DYNAMIC.
    for (kind, at, size) in [(1, 0, sections_at), (2, dynamic_at, dynamic.0.len() as u64)] {
        file.u32(&[kind, 4]);
        file.u64(&[at, at, at, size, size, 8]);
    }
    for part in [strings, dynamic.0, needed.0] {
        file.0.extend(part);
    }
    // The null section, and SHT_GNU_verneed.
    file.0.extend([0; SECTION_HEADER_BYTES as usize]);
    file.u32(&[0, GNU_VERNEED]);
    file.u64(&[2, needed_at, needed_at, sections_at - needed_at]);
    file.u32(&[0, 1]);
    file.u64(&[8, 0]);
    file.0
}
