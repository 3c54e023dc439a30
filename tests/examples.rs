//! Every configuration that is shipped loads, and prices what it says it prices.

use std::fs;
use std::path::Path;
use tollgate::config::Config;
use tollgate::price::Biller;

#[test]
fn every_example_configuration_is_valid() {
    let directory = Path::new(env!("CARGO_MANIFEST_DIR")).join("examples/configs");
    let files: Vec<_> = fs::read_dir(&directory).unwrap().map(|entry| entry.unwrap().path()).collect();
    assert!(files.len() >= 2, "the examples are gone");
    for file in files {
        let config = Config::from_bytes(&fs::read(&file).unwrap());
        let config = config.unwrap_or_else(|errors| panic!("{}: {errors:?}", file.display()));
        assert!(config.prices.table.find("gpt-4o", Biller::Unknown, None).is_some(), "{}", file.display());
    }
}
