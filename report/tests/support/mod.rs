//! Runs the command as people do.
#![allow(dead_code)] // each group of tests uses its part

use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

/// What a run came to.
#[derive(Debug)]
pub(crate) struct Run {
    /// The exit code.
    pub(crate) code: i32,
    /// Standard output.
    pub(crate) out: String,
    /// Standard error.
    pub(crate) err: String,
}

/// The repository's folder.
pub(crate) fn repository() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).parent().unwrap().into()
}

/// Runs the command in the repository's folder.
pub(crate) fn tollgate(arguments: &[&str]) -> Run {
    tollgate_with(arguments, "")
}

/// The same with `input` on standard input.
pub(crate) fn tollgate_with(arguments: &[&str], input: &str) -> Run {
    let mut command = Command::new(env!("CARGO_BIN_EXE_tollgate"));
    command.args(arguments).current_dir(repository());
    command.env_remove("NO_COLOR").env_remove("CLICOLOR_FORCE").env("COLUMNS", "100");
    command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
    let mut child = command.spawn().unwrap();
    // A command that does not read its input closes it; that is its right.
    let _ = child.stdin.take().unwrap().write_all(input.as_bytes());
    let output = child.wait_with_output().unwrap();
    Run {
        code: output.status.code().unwrap(),
        out: String::from_utf8(output.stdout).unwrap(),
        err: String::from_utf8(output.stderr).unwrap(),
    }
}

/// A file with `contents` for this test only.
pub(crate) fn file(name: &str, contents: &str) -> String {
    let path = Path::new(env!("CARGO_TARGET_TMPDIR")).join(name);
    std::fs::create_dir_all(path.parent().unwrap()).unwrap();
    std::fs::write(&path, contents).unwrap();
    path.to_str().unwrap().into()
}

/// The release of a price table that `tools/price_sources.sh` gets, as `litellm-1.109.1`.
pub(crate) fn price_release(name: &str) -> String {
    let script = std::fs::read_to_string(repository().join("tools/price_sources.sh")).unwrap();
    let pinned = script.lines().find_map(|line| line.trim().strip_prefix("release=")?.strip_prefix(name));
    format!("{name}-{}", pinned.and_then(|rest| rest.strip_prefix("==")).unwrap())
}

/// That release's table, if the script has put it into the cache.
#[allow(clippy::print_stderr)] // whoever runs the tests shall know
pub(crate) fn price_source(name: &str) -> Option<PathBuf> {
    let under = |variable: &str, folder: &str| std::env::var_os(variable).map(|path| PathBuf::from(path).join(folder));
    let cache = under("TOLLGATE_CACHE", "")
        .or_else(|| under("XDG_CACHE_HOME", "tollgate"))
        .or_else(|| under("HOME", ".cache/tollgate"));
    let release = price_release(name);
    let found = ["json", "py"].into_iter().filter_map(|ending| {
        let path = cache.as_ref()?.join("prices").join(format!("{release}.{ending}"));
        path.is_file().then_some(path)
    });
    let found = found.into_iter().next();
    if found.is_none() {
        eprintln!("skipped: {release} is not in the cache; tools/price_sources.sh {name} gets it");
    }
    found
}
