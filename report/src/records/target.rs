//! Where merged records go: standard output, or a file that appears when it is whole.

use crate::input;
use anyhow::{Context, bail};
use std::fs::{self, Metadata};
use std::io::{self, BufWriter, Write};
use std::path::{Path, PathBuf};
use tempfile::NamedTempFile;

/// Room for many records: they are written one at a time.
const WRITE_BYTES: usize = 1 << 18;

/// Where records are written.
pub(super) enum Target {
    /// Standard output, past what would take out colours.
    Stdout(BufWriter<io::Stdout>),
    /// A file beside `path`, which takes its place in the end.
    File { beside: BufWriter<NamedTempFile>, path: PathBuf },
}

impl Target {
    /// A file, or standard output where there is none or its name is `-`.
    ///
    /// # Errors
    /// The file is one of `inputs`, no file at all, or can't be created.
    pub(super) fn open<'i>(path: Option<&Path>, inputs: impl Iterator<Item = &'i PathBuf>) -> anyhow::Result<Target> {
        let Some(path) = path.filter(|path| *path != Path::new("-")) else {
            return Ok(Target::Stdout(BufWriter::with_capacity(WRITE_BYTES, io::stdout())));
        };
        let existing = fs::metadata(path).ok();
        if existing.as_ref().is_some_and(|existing| !existing.is_file()) {
            bail!("{} is not a file; without --output, records go to standard output", path.display());
        }
        // What a link points to is replaced, not the link.
        let path = if existing.is_some() { fs::canonicalize(path)? } else { path.to_owned() };
        for input in inputs.filter(|input| **input != Path::new("-")) {
            if fs::canonicalize(input).is_ok_and(|input| input == path) {
                bail!("{} is an input: write to another file", input::name(input));
            }
        }
        let beside = create(directory(&path), existing.as_ref());
        let beside = beside.with_context(|| format!("cannot create a file in {}", directory(&path).display()))?;
        Ok(Target::File { beside: BufWriter::with_capacity(WRITE_BYTES, beside), path })
    }

    /// Where there is room for as much as the output.
    pub(super) fn directory(&self) -> PathBuf {
        match self {
            Target::Stdout(_) => std::env::temp_dir(),
            Target::File { path, .. } => directory(path).to_owned(),
        }
    }

    /// How it is called in messages.
    pub(super) fn name(&self) -> String {
        match self {
            Target::Stdout(_) => "standard output".into(),
            Target::File { path, .. } => input::name(path),
        }
    }

    /// Ends the output; only now is there a file.
    ///
    /// # Errors
    /// The disk is full, or the file can't take its place.
    pub(super) fn finish(self) -> anyhow::Result<()> {
        match self {
            Target::Stdout(mut stdout) => Ok(stdout.flush()?),
            Target::File { beside, path } => {
                let written = || format!("cannot write {}", input::name(&path));
                let beside = beside.into_inner().map_err(io::IntoInnerError::into_error).with_context(written)?;
                beside.as_file().sync_all().with_context(written)?;
                beside.persist(&path).with_context(written)?;
                Ok(())
            }
        }
    }
}

impl Write for Target {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        match self {
            Target::Stdout(to) => to.write(bytes),
            Target::File { beside: to, .. } => to.write(bytes),
        }
    }

    fn flush(&mut self) -> io::Result<()> {
        match self {
            Target::Stdout(to) => to.flush(),
            Target::File { beside: to, .. } => to.flush(),
        }
    }
}

fn directory(path: &Path) -> &Path {
    path.parent().filter(|parent| *parent != Path::new("")).unwrap_or(Path::new("."))
}

/// A file that is read by whom other files are read by; else by whom the file that it replaces is.
#[cfg(unix)]
fn create(directory: &Path, replaces: Option<&Metadata>) -> io::Result<NamedTempFile> {
    use std::os::unix::fs::PermissionsExt;
    let usual = || fs::Permissions::from_mode(0o666);
    let permissions = replaces.map_or_else(usual, Metadata::permissions);
    tempfile::Builder::new().prefix(".tollgate-").permissions(permissions).tempfile_in(directory)
}

#[cfg(not(unix))]
fn create(directory: &Path, _replaces: Option<&Metadata>) -> io::Result<NamedTempFile> {
    tempfile::Builder::new().prefix(".tollgate-").tempfile_in(directory)
}
