//! Writes man pages and completions of the command line into a directory: `cargo run -p plugins --example manual -- DIR`.
//!
//! They come from the command line's own definition. The binary does not carry what makes them.

#![expect(clippy::print_stdout, reason = "this is a program for people")]

use std::fs;
use std::io;
use std::path::PathBuf;

use clap_complete::Shell;

fn main() -> io::Result<()> {
    let dir = std::env::args_os().nth(1).map(PathBuf::from);
    let dir = dir.ok_or_else(|| io::Error::other("which directory?"))?;
    let (man, completions) = (dir.join("man"), dir.join("completions"));
    fs::create_dir_all(&man)?;
    fs::create_dir_all(&completions)?;
    let mut command = plugins::cli::command();
    clap_mangen::generate_to(command.clone(), &man)?;
    for shell in [Shell::Bash, Shell::Fish, Shell::Zsh] {
        let path = clap_complete::generate_to(shell, &mut command, "trestle", &completions)?;
        println!("{}", path.display());
    }
    for page in fs::read_dir(&man)? {
        println!("{}", page?.path().display());
    }
    Ok(())
}
