//! Turns the `.wat` files of this folder into `.wasm` beside them.

use std::{error::Error, fs, path::Path};

fn main() -> Result<(), Box<dyn Error>> {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR"));
    for entry in fs::read_dir(folder)? {
        let path = entry?.path();
        if path.extension().is_some_and(|extension| extension == "wat") {
            fs::write(path.with_extension("wasm"), wat::parse_file(&path)?)?;
        }
    }
    Ok(())
}
