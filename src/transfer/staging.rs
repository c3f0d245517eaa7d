//! The staging directory. Code of the bench may write there: only regular files are read, never through a link, and only new files
//! are written.

use std::{
    fs::{File, OpenOptions},
    io,
    os::unix::fs::OpenOptionsExt as _,
    path::Path,
};

use rustix::fs::OFlags;

/// Opens a file for reading.
pub fn open(path: &Path) -> io::Result<File> {
    let flags = OFlags::NOFOLLOW | OFlags::NONBLOCK;
    let file = OpenOptions::new().read(true).custom_flags(flags.bits().cast_signed()).open(path)?;
    if file.metadata()?.is_file() {
        return Ok(file);
    }
    Err(io::Error::new(io::ErrorKind::InvalidInput, "is not a regular file"))
}

/// Opens a new file for writing, replacing any existing one.
pub fn create(path: &Path) -> io::Result<File> {
    match std::fs::remove_file(path) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
        _ => {}
    }
    OpenOptions::new().write(true).create_new(true).open(path)
}

/// Empties the directory, which may be a mount.
pub fn empty(folder: &Path) -> io::Result<()> {
    std::fs::create_dir_all(folder)?;
    for entry in std::fs::read_dir(folder)? {
        let entry = entry?;
        let path = entry.path();
        // The file system's own, in the root of a volume.
        if entry.file_name() == "lost+found" {
            continue;
        }
        if entry.file_type()?.is_dir() { std::fs::remove_dir_all(path)? } else { std::fs::remove_file(path)? }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_file_systems_own_folder_stays() {
        let folder = std::env::temp_dir().join(format!("frappe-staging-{}", std::process::id()));
        std::fs::create_dir_all(folder.join("lost+found")).expect("a folder");
        std::fs::create_dir_all(folder.join("other/inner")).expect("a folder");
        std::fs::write(folder.join("part"), "rows").expect("a file");
        empty(&folder).expect("it is emptied");
        let left: Vec<_> =
            std::fs::read_dir(&folder).expect("the folder").map(|it| it.expect("one").file_name()).collect();
        std::fs::remove_dir_all(&folder).expect("the folder");
        assert_eq!(left, ["lost+found"]);
    }
}
