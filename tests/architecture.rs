//! Which module may know which. The compiler keeps the filter out of the core; these rules it does not know.

use std::collections::BTreeMap;
use std::fs;
use std::path::Path;

/// Every source file of the core by its module path: `exchange/call`.
fn sources() -> BTreeMap<String, String> {
    fn walk(directory: &Path, root: &Path, found: &mut BTreeMap<String, String>) {
        for entry in fs::read_dir(directory).unwrap() {
            let path = entry.unwrap().path();
            if path.is_dir() {
                walk(&path, root, found);
            } else if path.extension().is_some_and(|extension| extension == "rs") {
                let name = path.strip_prefix(root).unwrap().with_extension("").to_str().unwrap().to_owned();
                found.insert(name, fs::read_to_string(&path).unwrap());
            }
        }
    }
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("src");
    let mut found = BTreeMap::new();
    walk(&root, &root, &mut found);
    assert!(found.len() > 20, "the sources are gone");
    found
}

/// The core's code by module, without unit tests, which may use anything.
fn sources_without_tests() -> BTreeMap<String, String> {
    let code = |text: String| text.split("#[cfg(test)]").next().unwrap().to_owned();
    let files = sources().into_iter().filter(|(module, _)| !module.ends_with("/tests") && !module.contains("/tests/"));
    files.map(|(module, text)| (module, code(text))).collect()
}

/// The top-level modules that `text` names as `crate::…`.
fn uses(text: &str) -> Vec<&str> {
    let names = text.split("crate::").skip(1);
    names.map(|rest| rest.split(|c: char| !c.is_alphanumeric() && c != '_').next().unwrap()).collect()
}

fn area(module: &str) -> &str {
    module.split('/').next().unwrap()
}

#[test]
fn money_knows_nothing_and_prices_know_no_exchange() {
    let layers = ["money", "usage", "price", "budget", "exchange"];
    for (module, text) in sources_without_tests() {
        let Some(own) = layers.iter().position(|layer| *layer == area(&module)) else { continue };
        for used in uses(&text) {
            let used_layer = layers.iter().position(|layer| *layer == used);
            assert!(used_layer.is_none_or(|layer| layer <= own), "{module} uses {used}");
        }
    }
}

#[test]
fn wire_formats_and_readers_know_no_prices_and_no_host() {
    for (module, text) in sources_without_tests() {
        if !["api", "body"].contains(&area(&module)) {
            continue;
        }
        for used in uses(&text) {
            // Money is there as a kind of number: a provider's own cost, a quantity in decimals.
            assert!(["api", "body", "money", "usage"].contains(&used), "{module} uses {used}");
        }
    }
}

#[test]
fn edits_of_bodies_know_only_how_bodies_are_read() {
    for (module, text) in sources_without_tests() {
        if area(&module) == "rewrite" {
            for used in uses(&text) {
                assert!(["body", "rewrite"].contains(&used), "{module} uses {used}");
            }
        }
    }
}

#[test]
fn only_the_filter_names_proxy_wasm() {
    for (module, text) in sources_without_tests() {
        let names_it = text.lines().any(|line| line.contains("proxy_wasm") && !line.trim_start().starts_with("//"));
        assert!(!names_it || area(&module) == "filter", "{module} names proxy_wasm");
    }
}

#[test]
fn the_filter_decides_nothing_about_money_or_policy() {
    for (module, text) in sources_without_tests() {
        if area(&module) == "filter" {
            for used in uses(&text) {
                assert!(!["price", "usage", "api", "attribution"].contains(&used), "{module} uses {used}");
            }
        }
    }
}

#[test]
fn metric_names_stand_in_one_place() {
    for (module, text) in sources_without_tests() {
        let spelt = text.lines().any(|line| line.contains("\"tollgate_") && line.contains("_total"));
        assert!(!spelt || module == "telemetry", "{module} spells a metric's name");
    }
}

#[test]
fn files_stay_small_enough_to_read() {
    for (module, text) in sources() {
        assert!(text.lines().count() <= 600, "{module} has {} lines", text.lines().count());
    }
}
