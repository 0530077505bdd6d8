//! `trestle install` and `trestle uninstall`.
//!
//! A plugin directory is in use while it is written: a runtime may start a plugin at any moment. So every file
//! appears complete under its name or not at all (temporary file, fsync, rename), and an old one stays whole for
//! those who run it.

use std::fs::{self, File};
use std::io::{self, Write};
use std::os::unix::fs::{MetadataExt, OpenOptionsExt, symlink};
use std::path::{Path, PathBuf};

use super::{CliError, InstallArgs, UninstallArgs, file};
use crate::applets::{self, Applet};
use crate::process::BINARY;

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
    let own = PathBuf::from("/proc/self/exe");
    let image = fs::read(&own).map_err(file("read", &own))?;
    let binary = args.bin_dir.join(BINARY);
    write_atomically(&binary, &image, 0o755)?;
    writeln!(out, "wrote {}", binary.display())?;
    for Applet { name, .. } in chosen {
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
        if read_if_there(&path)?.is_some_and(|found| found == CONF.as_bytes()) {
            writeln!(out, "kept {} (it is the same)", path.display())?;
        } else {
            write_atomically(&path, CONF.as_bytes(), 0o644)?;
            writeln!(out, "wrote {}", path.display())?;
        }
    }
    Ok(())
}

pub(super) fn uninstall(args: &UninstallArgs, out: &mut impl Write) -> Result<(), CliError> {
    let binary = args.bin_dir.join(BINARY);
    let installed = fs::metadata(&binary).ok();
    for Applet { name, .. } in applets::ALL {
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

fn choose(names: &[String]) -> Result<Vec<Applet>, CliError> {
    if names.is_empty() {
        return Ok(applets::ALL.to_vec());
    }
    let find = |name: &String| {
        applets::find(applets::ALL, name).ok_or_else(|| CliError::UnknownPlugin(name.clone()))
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

fn create_dir(path: &Path) -> Result<(), CliError> {
    fs::create_dir_all(path).map_err(file("create directory", path))
}

/// A name beside `path` that no runtime takes for a plugin or a configuration.
fn temporary(path: &Path) -> PathBuf {
    let name = path.file_name().unwrap_or_default().to_string_lossy();
    path.with_file_name(format!(".{name}.{}.tmp", std::process::id()))
}

fn write_atomically(path: &Path, content: &[u8], mode: u32) -> Result<(), CliError> {
    let temporary = temporary(path);
    let written = File::options()
        .write(true)
        .create(true)
        .truncate(true)
        .mode(mode)
        .open(&temporary)
        .and_then(|mut file| {
            file.write_all(content)?;
            // The umask must not decide whether runtimes can execute it.
            file.set_permissions(std::os::unix::fs::PermissionsExt::from_mode(mode))?;
            file.sync_all()
        })
        .and_then(|()| fs::rename(&temporary, path));
    if written.is_err() {
        let _ = fs::remove_file(&temporary);
    }
    written.map_err(file("write", path))?;
    path.parent().map_or(Ok(()), sync_dir)
}

/// A hard link, or a symbolic one on file systems that have no hard links.
fn link_atomically(target: &Path, path: &Path) -> Result<(), CliError> {
    let temporary = temporary(path);
    let _ = fs::remove_file(&temporary);
    let linked = fs::hard_link(target, &temporary)
        .or_else(|_| symlink(target.file_name().unwrap_or_default(), &temporary))
        .and_then(|()| fs::rename(&temporary, path));
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
