//! Finds the price file of LiteLLM or genai-prices in what the user has: the file, a wheel, or an installed package.

use super::python;
use crate::document::{Dialect, Document, Node};
use crate::input;
use anyhow::{Context, bail};
use clap::ValueEnum;
use std::fs;
use std::io::{Cursor, Read};
use std::path::{Path, PathBuf};

/// Whose price table.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(crate) enum Source {
    /// model_prices_and_context_window_backup.json of the Python package litellm.
    Litellm,
    /// data.py of the Python package genai-prices, or data.json of its repository.
    GenaiPrices,
}

/// Largest price file in a wheel.
const MAX_BYTES: u64 = 256 << 20;

impl Source {
    /// The package's name.
    pub(crate) fn name(self) -> &'static str {
        match self {
            Source::Litellm => "litellm",
            Source::GenaiPrices => "genai-prices",
        }
    }

    /// The files that have its prices, below the folder packages are in; the first that is there counts.
    fn files(self) -> &'static [&'static str] {
        match self {
            Source::Litellm => &["litellm/model_prices_and_context_window_backup.json"],
            Source::GenaiPrices => &["genai_prices/data.json", "genai_prices/data.py"],
        }
    }

    /// How the name of its `.dist-info` begins.
    fn dist_info(self) -> &'static str {
        match self {
            Source::Litellm => "litellm-",
            Source::GenaiPrices => "genai_prices-",
        }
    }

    /// Reads the prices at `path`.
    pub(crate) fn read(self, path: &Path) -> anyhow::Result<Prices> {
        if path.is_dir() {
            return self.read_folder(path);
        }
        let bytes = input::bytes(path)?;
        if bytes.starts_with(b"PK\x03\x04") {
            return self.read_wheel(path, bytes);
        }
        let text = String::from_utf8(bytes).with_context(|| format!("{} is not UTF-8 text", input::name(path)))?;
        Ok(Prices { data: self.parse(&text, &input::name(path))?, version: None })
    }

    fn read_folder(self, folder: &Path) -> anyhow::Result<Prices> {
        let names = self.files();
        // The package itself, or what it is installed in.
        let candidates = names.iter().flat_map(|name| {
            let inside = Path::new(name).file_name().map(PathBuf::from).unwrap_or_default();
            [folder.join(name), folder.join(inside)]
        });
        let Some(file) = candidates.into_iter().find(|file| file.is_file()) else {
            bail!("{} has no {}", folder.display(), names.join(" or "));
        };
        let packages = file.parent().and_then(Path::parent);
        let version = packages.and_then(|packages| {
            let entries = fs::read_dir(packages).ok()?;
            entries.flatten().find_map(|entry| self.version_in(entry.file_name().to_str()?))
        });
        Ok(Prices { data: self.parse(&input::text(&file)?, &input::name(&file))?, version })
    }

    fn read_wheel(self, path: &Path, bytes: Vec<u8>) -> anyhow::Result<Prices> {
        let name = input::name(path);
        let mut wheel =
            zip::ZipArchive::new(Cursor::new(bytes)).with_context(|| format!("cannot read the wheel {name}"))?;
        let version = wheel.file_names().find_map(|entry| self.version_in(entry.ok()?.split('/').next()?));
        let known = self.files().iter().find(|file| wheel.index_for_name(file).is_some());
        let Some(file) = known else {
            bail!("{name} has no {}", self.files().join(" or "));
        };
        let mut text = String::new();
        let entry = wheel.by_name(file).with_context(|| format!("cannot read {file} in {name}"))?;
        entry.take(MAX_BYTES).read_to_string(&mut text).with_context(|| format!("cannot read {file} in {name}"))?;
        Ok(Prices { data: self.parse(&text, &format!("{name}/{file}"))?, version })
    }

    /// JSON, or of genai-prices a Python module that assigns the data.
    fn parse(self, text: &str, name: &str) -> anyhow::Result<Node> {
        let is_json = text.trim_start().starts_with(['{', '[']);
        match self {
            Source::GenaiPrices if !is_json => python::parse(text).map_err(|error| anyhow::anyhow!("{name}:{error}")),
            Source::Litellm if !is_json => bail!(
                "{name} is not LiteLLM's table: that is JSON, in the package's wheel or at {}",
                self.files().concat()
            ),
            _ => {
                let document =
                    Document::parse(text, Dialect::Json).map_err(|error| anyhow::anyhow!("{name}:{error}"))?;
                document.roots.into_iter().next().with_context(|| format!("{name} is empty"))
            }
        }
    }

    /// The version in `litellm-1.109.1.dist-info`.
    fn version_in(self, folder: &str) -> Option<String> {
        let version = folder.strip_suffix(".dist-info")?.strip_prefix(self.dist_info())?;
        Some(version.to_owned())
    }
}

/// A source's prices as they are written there.
pub(crate) struct Prices {
    /// The data.
    pub(crate) data: Node,
    /// The package's version, where it is known.
    pub(crate) version: Option<String>,
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::Write;
    use zip::write::SimpleFileOptions;

    const JSON: &str = r#"{"gpt-4o": {"litellm_provider": "openai"}}"#;

    /// A folder of its own below the system's, removed at the end.
    struct Folder(PathBuf);

    impl Folder {
        fn new(name: &str) -> Folder {
            let folder = std::env::temp_dir().join(format!("tollgate-prices-{name}-{}", std::process::id()));
            fs::create_dir_all(&folder).unwrap();
            Folder(folder)
        }
    }

    impl Drop for Folder {
        fn drop(&mut self) {
            let _ = fs::remove_dir_all(&self.0);
        }
    }

    #[test]
    fn prices_are_found_in_the_file_the_wheel_and_the_package() {
        let folder = Folder::new("forms");
        let package = folder.0.join("litellm");
        fs::create_dir_all(&package).unwrap();
        fs::create_dir_all(folder.0.join("litellm-1.2.3.dist-info")).unwrap();
        let file = package.join("model_prices_and_context_window_backup.json");
        fs::write(&file, JSON).unwrap();
        let wheel = folder.0.join("litellm.whl");
        let mut archive = zip::ZipWriter::new(fs::File::create(&wheel).unwrap());
        for (name, text) in
            [("litellm/model_prices_and_context_window_backup.json", JSON), ("litellm-1.2.4.dist-info/METADATA", "")]
        {
            archive.start_file(name, SimpleFileOptions::default()).unwrap();
            archive.write_all(text.as_bytes()).unwrap();
        }
        archive.finish().unwrap();
        for (path, version) in
            [(&file, None), (&wheel, Some("1.2.4")), (&package, Some("1.2.3")), (&folder.0, Some("1.2.3"))]
        {
            let prices = Source::Litellm.read(path).unwrap();
            assert!(prices.data.get("gpt-4o").is_some(), "{}", path.display());
            assert_eq!(prices.version.as_deref(), version, "{}", path.display());
        }
        for path in [&wheel, &folder.0] {
            let error = Source::GenaiPrices.read(path).err().map(|error| error.to_string()).unwrap_or_default();
            assert!(error.contains("has no genai_prices/data.json or genai_prices/data.py"), "{error}");
        }
    }

    #[test]
    fn a_file_that_is_no_price_table_is_refused_with_its_name_and_place() {
        let folder = Folder::new("broken");
        let file = folder.0.join("prices.json");
        for (source, text, error) in [
            (Source::Litellm, "{\"a\": }", "prices.json:1:7: "),
            (Source::Litellm, "<html>", "prices.json is not LiteLLM's table: that is JSON"),
            (Source::Litellm, "", "prices.json is not LiteLLM's table: that is JSON"),
            (Source::GenaiPrices, "<html>", "prices.json:1:1: expected a line `providers = [`"),
        ] {
            fs::write(&file, text).unwrap();
            let found = source.read(&file).err().map(|error| error.to_string()).unwrap_or_default();
            assert!(found.contains(error), "{found}");
        }
    }
}
