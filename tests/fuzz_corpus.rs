//! What the fuzz targets check, on the committed corpus: what fuzzing once found stays found, without nightly.

#[path = "../fuzz/checks/mod.rs"]
mod checks;

use std::panic::{RefUnwindSafe, catch_unwind};
use std::path::Path;

#[test]
fn every_input_of_the_corpus_passes_its_check() {
    let corpus = Path::new(env!("CARGO_MANIFEST_DIR")).join("fuzz/corpus");
    let mut failed = Vec::new();
    for (target, check) in checks::ALL {
        let mut inputs = 0;
        for entry in std::fs::read_dir(corpus.join(target)).unwrap() {
            let path = entry.unwrap().path();
            let data = std::fs::read(&path).unwrap();
            inputs += 1;
            if !passes(check, &data) {
                failed.push(path);
            }
        }
        assert!(inputs >= 10, "{target} has {inputs} inputs");
    }
    assert!(failed.is_empty(), "the reason for each is above: {failed:#?}");
}

#[test]
fn every_target_has_a_corpus_and_every_corpus_a_target() {
    let fuzz = Path::new(env!("CARGO_MANIFEST_DIR")).join("fuzz");
    let names = |folder: &str| {
        let entries = std::fs::read_dir(fuzz.join(folder)).unwrap();
        let mut names: Vec<String> =
            entries.map(|entry| entry.unwrap().path().file_stem().unwrap().to_string_lossy().into_owned()).collect();
        names.sort();
        names
    };
    let targets: Vec<_> = checks::ALL.iter().map(|(name, _)| (*name).to_owned()).collect();
    assert_eq!(names("corpus"), targets);
    assert_eq!(names("fuzz_targets"), targets);
}

fn passes(check: impl Fn(&[u8]) + RefUnwindSafe, data: &[u8]) -> bool {
    catch_unwind(|| check(data)).is_ok()
}
