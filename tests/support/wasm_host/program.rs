//! The module under test, compiled once per test process.

use std::env;
use std::fs;
use std::path::{Path, PathBuf};
use std::sync::OnceLock;
use std::time::SystemTime;

use wasmi::{CompilationMode, Config, Engine, Module};

/// A compiled module; VMs are started from it cheaply.
#[derive(Clone, Debug)]
pub struct Program {
    pub(super) engine: Engine,
    pub(super) module: Module,
}

impl Program {
    /// The filter: `$TOLLGATE_WASM`, else `dist/tollgate.wasm`.
    ///
    /// # Panics
    ///
    /// When the module is missing or older than the sources, as the test would then say nothing about them.
    pub fn filter() -> Self {
        static FILTER: OnceLock<Program> = OnceLock::new();
        FILTER
            .get_or_init(|| {
                let root = Path::new(env!("CARGO_MANIFEST_DIR"));
                let path = env::var_os("TOLLGATE_WASM").map_or_else(|| root.join("dist/tollgate.wasm"), PathBuf::from);
                Self::built_from(root, &path)
            })
            .clone()
    }

    /// A module built from the sources under `root`; see [`Self::filter`].
    pub fn built_from(root: &Path, wasm: &Path) -> Self {
        if let Err(reason) = up_to_date(root, wasm) {
            panic!("run make filter first: {reason}");
        }
        Self::from_bytes(&fs::read(wasm).unwrap_or_else(|error| panic!("{}: {error}", wasm.display())))
    }

    /// From a module in binary or text form.
    pub fn from_bytes(wasm: &[u8]) -> Self {
        let mut config = Config::default();
        // Translated lazily, the first run of a function would be charged for its translation.
        config.consume_fuel(true).compilation_mode(CompilationMode::Eager);
        let engine = Engine::new(&config);
        let module = Module::new(&engine, wasm).unwrap_or_else(|error| panic!("not a valid module: {error}"));
        Self { engine, module }
    }
}

fn up_to_date(root: &Path, wasm: &Path) -> Result<(), String> {
    let Some(built) = modified(wasm) else {
        return Err(format!("{} is missing", wasm.display()));
    };
    let mut newest = (SystemTime::UNIX_EPOCH, PathBuf::new());
    newest_file(&root.join("src"), &mut newest);
    newest_file(&root.join("Cargo.toml"), &mut newest);
    if newest.0 > built {
        return Err(format!("{} is older than {}", wasm.display(), newest.1.display()));
    }
    Ok(())
}

fn newest_file(path: &Path, newest: &mut (SystemTime, PathBuf)) {
    if let Ok(entries) = fs::read_dir(path) {
        for entry in entries.flatten() {
            newest_file(&entry.path(), newest);
        }
    } else if let Some(time) = modified(path)
        && time > newest.0
    {
        *newest = (time, path.to_owned());
    }
}

fn modified(path: &Path) -> Option<SystemTime> {
    fs::metadata(path).ok()?.modified().ok()
}

#[test]
fn a_module_that_is_missing_or_stale_says_to_build_it() {
    let root = env::temp_dir().join(format!("tollgate-program-{}", std::process::id()));
    let wasm = root.join("dist.wasm");
    fs::create_dir_all(root.join("src/filter")).unwrap();
    fs::write(root.join("Cargo.toml"), "").unwrap();
    fs::write(root.join("src/filter/a.rs"), "").unwrap();

    assert_eq!(up_to_date(&root, &wasm), Err(format!("{} is missing", wasm.display())));
    fs::write(&wasm, "").unwrap();
    assert_eq!(up_to_date(&root, &wasm), Ok(()));
    let later = SystemTime::now() + std::time::Duration::from_secs(60);
    fs::File::open(root.join("src/filter/a.rs")).unwrap().set_modified(later).unwrap();
    assert!(up_to_date(&root, &wasm).unwrap_err().contains("is older than"));
    fs::remove_dir_all(&root).unwrap();
}
