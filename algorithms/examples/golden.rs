//! Writes the golden files anew: `cargo xtask golden`. The folder they go to is the one argument.

use sohu_coll_algorithms::golden_files;
use std::error::Error;
use std::fs;
use std::path::PathBuf;

fn main() -> Result<(), Box<dyn Error>> {
    let folder = std::env::args().nth(1).ok_or("which folder do the golden files go to?")?;
    let folder = PathBuf::from(folder);
    fs::create_dir_all(&folder)?;
    let files = golden_files();
    // A file that no algorithm writes any more would be compared with nothing, and never be looked at.
    for entry in fs::read_dir(&folder)? {
        let old = entry?;
        if files.iter().all(|(name, _)| old.file_name() != name.as_str()) {
            println!("golden: {} is gone", old.path().display());
            fs::remove_file(old.path())?;
        }
    }
    let mut changed = 0;
    for (name, text) in &files {
        let path = folder.join(name);
        if fs::read_to_string(&path).is_ok_and(|old| old == *text) {
            continue;
        }
        fs::write(&path, text)?;
        println!("golden: {} is new", path.display());
        changed += 1;
    }
    println!("golden: {changed} of {} files changed", files.len());
    Ok(())
}
