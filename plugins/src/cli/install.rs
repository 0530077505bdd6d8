//! `trestle install` and `trestle uninstall`.
//!
//! A plugin directory is in use while it is written: a runtime may start a plugin at any moment. So every file
//! appears complete under its name or not at all (temporary file, fsync, rename), and an old one stays whole for
//! those who run it. What an install that was killed has left is removed by the next one, see [`super::beside`].

use std::ffi::OsStr;
use std::fs::{self, File, Permissions};
use std::io::{self, Write};
use std::os::unix::fs::{MetadataExt, OpenOptionsExt, PermissionsExt, symlink};
use std::path::{Path, PathBuf};

use super::beside::{self, InUse};
use super::{CliError, InstallArgs, UninstallArgs, file};
use crate::registry::{self, BINARY, BuiltIn};

/// The configuration that `install --conf-dir` writes.
const CONF_NAME: &str = "10-trestle.conflist";
const CONF: &str = include_str!("../../../cni-conf/net.d/10-trestle.conflist");

pub(super) fn install(args: &InstallArgs, out: &mut impl Write) -> Result<(), CliError> {
    let chosen = choose(&args.plugins)?;
    let conf = args.conf_dir.as_ref().map(|dir| dir.join(CONF_NAME));
    if let Some(path) = &conf
        && !args.force
        && read_if_there(path)?.is_some_and(|found| found != CONF.as_bytes())
    {
        return Err(CliError::ConfDiffers(path.clone()));
    }

    create_dir(&args.bin_dir)?;
    let _in_use = enter(&args.bin_dir);
    let own = PathBuf::from("/proc/self/exe");
    let image = fs::read(&own).map_err(file("read", &own))?;
    let binary = args.bin_dir.join(BINARY);
    write_atomically(&binary, &image, 0o755)?;
    writeln!(out, "wrote {}", binary.display())?;
    for BuiltIn { name, .. } in chosen {
        let path = args.bin_dir.join(name);
        let replaced = path.symlink_metadata().is_ok();
        link_atomically(&binary, &path)?;
        writeln!(
            out,
            "{} {}",
            if replaced { "replaced" } else { "linked" },
            path.display()
        )?;
    }
    sync_dir(&args.bin_dir)?;

    if let Some(path) = conf {
        if let Some(dir) = path.parent() {
            create_dir(dir)?;
        }
        let _in_use = path.parent().map(enter);
        if read_if_there(&path)?.is_some_and(|found| found == CONF.as_bytes()) {
            writeln!(out, "kept {} (it is the same)", path.display())?;
        } else {
            write_atomically(&path, CONF.as_bytes(), 0o644)?;
            writeln!(out, "wrote {}", path.display())?;
        }
        tell_who_wins(&path, out)?;
    }
    Ok(())
}

/// Says which lists of the directory come before ours: runtimes that are not told a network's name, such as those that serve a
/// kubelet, take the first.
fn tell_who_wins(path: &Path, out: &mut impl Write) -> Result<(), CliError> {
    let Some(dir) = path.parent() else {
        return Ok(());
    };
    let entries = fs::read_dir(dir).map_err(file("list", dir))?;
    let mut before: Vec<PathBuf> = entries
        .flatten()
        .map(|entry| entry.path())
        .filter(|other| other.file_name() < path.file_name() && is_configuration(other))
        .collect();
    before.sort();
    let Some(first) = before.first() else {
        return Ok(());
    };
    let names: Vec<String> = before.iter().filter_map(|path| name_of(path)).collect();
    writeln!(
        out,
        "note: {} before {CONF_NAME} in {}: {}. Runtimes that take the first network (containerd and CRI-O for a kubelet) use \
         {}; remove or rename it if they are to use this one",
        if names.len() == 1 {
            "one file comes"
        } else {
            "files come"
        },
        dir.display(),
        names.join(", "),
        name_of(first).unwrap_or_default(),
    )?;
    Ok(())
}

/// Whether libcni takes a file for a configuration, by its name.
fn is_configuration(path: &Path) -> bool {
    let extension = path.extension().and_then(OsStr::to_str);
    matches!(extension, Some("conf" | "conflist" | "json")) && !path.is_dir()
}

fn name_of(path: &Path) -> Option<String> {
    let name = path.file_name()?;
    Some(name.to_string_lossy().into_owned())
}

pub(super) fn uninstall(args: &UninstallArgs, out: &mut impl Write) -> Result<(), CliError> {
    let binary = args.bin_dir.join(BINARY);
    let installed = fs::metadata(&binary).ok();
    drop(enter(&args.bin_dir));
    for BuiltIn { name, .. } in registry::ALL {
        let path = args.bin_dir.join(name);
        let Ok(found) = fs::metadata(&path) else {
            continue;
        };
        let ours = installed
            .as_ref()
            .is_some_and(|own| (own.dev(), own.ino()) == (found.dev(), found.ino()));
        if ours {
            remove(&path, out)?;
        } else {
            writeln!(out, "kept {} (it is another program)", path.display())?;
        }
    }
    if installed.is_some() {
        remove(&binary, out)?;
    }
    if let Some(path) = args.conf_dir.as_ref().map(|dir| dir.join(CONF_NAME)) {
        match read_if_there(&path)? {
            Some(found) if found == CONF.as_bytes() => remove(&path, out)?,
            Some(_) => writeln!(out, "kept {} (it was changed)", path.display())?,
            None => {}
        }
    }
    Ok(())
}

fn choose(names: &[String]) -> Result<Vec<BuiltIn>, CliError> {
    if names.is_empty() {
        return Ok(registry::ALL.to_vec());
    }
    let find = |name: &String| {
        registry::find(registry::ALL, name).ok_or_else(|| CliError::UnknownPlugin(name.clone()))
    };
    names.iter().map(find).collect()
}

fn read_if_there(path: &Path) -> Result<Option<Vec<u8>>, CliError> {
    match fs::read(path) {
        Ok(bytes) => Ok(Some(bytes)),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
        Err(error) => Err(file("read", path)(error)),
    }
}

/// Marks a directory as one that an install works in, and removes what killed ones have left there.
fn enter(dir: &Path) -> InUse {
    let plugins = registry::ALL.iter().map(|plugin| plugin.name);
    let names: Vec<_> = plugins.chain([BINARY, CONF_NAME]).collect();
    beside::enter(dir, &names)
}

fn create_dir(path: &Path) -> Result<(), CliError> {
    fs::create_dir_all(path).map_err(file("create directory", path))
}

fn write_atomically(path: &Path, content: &[u8], mode: u32) -> Result<(), CliError> {
    let mut options = File::options();
    options.write(true).create_new(true).mode(mode);
    let (temporary, mut made) =
        beside::make(path, |path| options.open(path)).map_err(file("write", path))?;
    let written = made
        .write_all(content)
        // The umask must not decide whether runtimes can execute it.
        .and_then(|()| made.set_permissions(Permissions::from_mode(mode)))
        .and_then(|()| made.sync_all());
    // Nobody can execute a file that is open for writing.
    drop(made);
    let written = written.and_then(|()| fs::rename(&temporary, path));
    if written.is_err() {
        let _ = fs::remove_file(&temporary);
    }
    written.map_err(file("write", path))?;
    path.parent().map_or(Ok(()), sync_dir)
}

/// A hard link, or a symbolic one on file systems that have no hard links.
fn link_atomically(target: &Path, path: &Path) -> Result<(), CliError> {
    let link = |new: &Path| match fs::hard_link(target, new) {
        Err(error) if error.kind() != io::ErrorKind::AlreadyExists => {
            symlink(target.file_name().unwrap_or_default(), new)
        }
        linked => linked,
    };
    let (temporary, ()) = beside::make(path, link).map_err(file("link", path))?;
    let linked = fs::rename(&temporary, path);
    // Renaming one link of a file onto another does nothing and leaves both (rename(2)).
    let _ = fs::remove_file(&temporary);
    linked.map_err(file("link", path))
}

fn sync_dir(dir: &Path) -> Result<(), CliError> {
    File::open(dir)
        .and_then(|dir| dir.sync_all())
        .map_err(file("sync directory", dir))
}

fn remove(path: &Path, out: &mut impl Write) -> Result<(), CliError> {
    fs::remove_file(path).map_err(file("remove", path))?;
    writeln!(out, "removed {}", path.display())?;
    Ok(())
}
