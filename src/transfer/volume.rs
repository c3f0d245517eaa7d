//! A folder of a volume. Another owner may write to it too: nothing is read, written or removed through a link, so that none
//! leads out of it.

use std::{
    ffi::OsStr,
    fs::File,
    io::{self, Read, Write as _},
    os::{fd::OwnedFd, unix::ffi::OsStrExt as _},
    path::{Path as FilePath, PathBuf},
};

use object_store::path::Path;
use rustix::{
    fs::{AtFlags, CWD, Dir, FileType, Mode, OFlags, mkdirat, openat, renameat, statat, unlinkat},
    io::Errno,
};

/// What a file on its way is called, beside its name.
const PART: &str = "#part";
/// Folders are as others may use them, as far as the process's mask lets them.
const FOLDER_MODE: Mode = Mode::from_raw_mode(0o777);
/// Folders in folders that are removed: backups have none.
const DEPTH_MAX: u8 = 16;
const FILE_MODE: Mode = Mode::from_raw_mode(0o666);

/// A folder of a volume.
pub struct Volume(PathBuf);

impl Volume {
    /// The folder, which must be there.
    pub fn open(root: &FilePath) -> io::Result<Self> {
        let volume = Self(root.to_owned());
        volume.root().map(|_| volume)
    }

    fn root(&self) -> io::Result<OwnedFd> {
        Ok(openat(CWD, &self.0, OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC, Mode::empty())?)
    }

    /// Opens the folder that a file is in; answers it and the file's name.
    fn above(&self, path: &Path, made: Made) -> io::Result<(OwnedFd, String)> {
        let mut parts: Vec<String> = path.parts().map(|it| it.as_ref().to_owned()).collect();
        let name = parts.pop().filter(|it| is_name(it)).ok_or(Errno::INVAL)?;
        let mut folder = self.root()?;
        for part in &parts {
            if !is_name(part) {
                return Err(Errno::INVAL.into());
            }
            if made == Made::Anew {
                match mkdirat(&folder, part.as_str(), FOLDER_MODE) {
                    Ok(()) | Err(Errno::EXIST) => {}
                    Err(error) => return Err(error.into()),
                }
            }
            folder = below(&folder, part.as_ref())?;
        }
        Ok((folder, name))
    }

    /// Opens a plain file.
    pub fn read(&self, path: &Path) -> io::Result<File> {
        let (folder, name) = self.above(path, Made::Before)?;
        let flags = OFlags::RDONLY | OFlags::NOFOLLOW | OFlags::NONBLOCK | OFlags::CLOEXEC;
        let file = File::from(openat(&folder, name.as_str(), flags, Mode::empty())?);
        if file.metadata()?.is_file() {
            return Ok(file);
        }
        Err(io::Error::new(io::ErrorKind::InvalidInput, "is not a regular file"))
    }

    /// Writes a file, which is there whole or not at all.
    pub fn write(&self, path: &Path, content: &mut dyn Read) -> io::Result<()> {
        let (folder, name) = self.above(path, Made::Anew)?;
        let part = format!("{name}{PART}");
        match unlinkat(&folder, part.as_str(), AtFlags::empty()) {
            Ok(()) | Err(Errno::NOENT) => {}
            Err(error) => return Err(error.into()),
        }
        let flags = OFlags::WRONLY | OFlags::CREATE | OFlags::EXCL | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        let mut file = File::from(openat(&folder, part.as_str(), flags, FILE_MODE)?);
        let written = io::copy(content, &mut file).and_then(|_| file.flush()).and_then(|()| file.sync_all());
        if let Err(error) = written {
            let _ = unlinkat(&folder, part.as_str(), AtFlags::empty());
            return Err(error);
        }
        Ok(renameat(&folder, part.as_str(), &folder, name.as_str())?)
    }

    /// Names of the folders in a folder, which need not be there.
    pub fn folders(&self, path: &Path) -> io::Result<Vec<String>> {
        let found = match self.above(path, Made::Before).and_then(|(folder, name)| below(&folder, name.as_ref())) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
            other => other?,
        };
        let mut names = Vec::new();
        for entry in Dir::read_from(&found)? {
            let entry = entry?;
            let Ok(name) = entry.file_name().to_str() else { continue };
            if is_name(name) && kind(&found, OsStr::from_bytes(entry.file_name().to_bytes()))? == FileType::Directory {
                names.push(name.to_owned());
            }
        }
        names.sort_unstable();
        Ok(names)
    }

    /// Removes a file, or a folder with all that is in it; neither need be there.
    pub fn remove(&self, path: &Path) -> io::Result<()> {
        match self.above(path, Made::Before).and_then(|(folder, name)| remove(&folder, name.as_ref(), DEPTH_MAX)) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
            other => other,
        }
    }
}

/// Whether folders that are missing are made.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Made {
    Before,
    Anew,
}

fn is_name(name: &str) -> bool {
    !matches!(name, "" | "." | "..") && !name.contains(['/', '\0'])
}

/// A folder in a folder; a link to one is none.
fn below(folder: &OwnedFd, name: &OsStr) -> io::Result<OwnedFd> {
    let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    Ok(openat(folder, name, flags, Mode::empty())?)
}

fn kind(folder: &OwnedFd, name: &OsStr) -> io::Result<FileType> {
    Ok(FileType::from_raw_mode(statat(folder, name, AtFlags::SYMLINK_NOFOLLOW)?.st_mode))
}

/// Removes the entry of this name in a folder. Of a link only the link itself is removed.
fn remove(folder: &OwnedFd, name: &OsStr, depth_left: u8) -> io::Result<()> {
    if kind(folder, name)? != FileType::Directory {
        return Ok(unlinkat(folder, name, AtFlags::empty())?);
    }
    let depth_left = depth_left.checked_sub(1).ok_or(Errno::NAMETOOLONG)?;
    let inner = below(folder, name)?;
    for entry in Dir::read_from(&inner)? {
        let entry = entry?;
        let name = entry.file_name().to_bytes();
        if name != b"." && name != b".." {
            remove(&inner, OsStr::from_bytes(name), depth_left)?;
        }
    }
    Ok(unlinkat(folder, name, AtFlags::REMOVEDIR)?)
}
