//! The command as people call it.
#![allow(clippy::unwrap_used)]

use std::process::{Command, Output};

fn tollgate(arguments: &[&str]) -> Output {
    Command::new(env!("CARGO_BIN_EXE_tollgate")).args(arguments).output().unwrap()
}

#[test]
fn it_tells_its_version() {
    let output = tollgate(&["--version"]);
    assert!(output.status.success());
    assert_eq!(String::from_utf8(output.stdout).unwrap(), concat!("tollgate ", env!("CARGO_PKG_VERSION"), "\n"));
}

#[test]
fn without_arguments_it_shows_help_and_an_unknown_one_is_refused() {
    assert!(String::from_utf8(tollgate(&[]).stderr).unwrap().contains("Usage: tollgate"));
    assert_eq!(tollgate(&["--verison"]).status.code(), Some(2));
}
