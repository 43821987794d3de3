//! Builds the stock plugins and embeds them, so that `cargo install` gives the whole product.

// A build script speaks to cargo over standard output.
#![allow(clippy::print_stdout)]

fn main() {
    if let Err(fault) = pintle_guest_build::embed(&[
        "example",
        "batv",
        "dnsbl",
        "greylist",
        "rate-limit",
        "relay-control",
        "header-rewrite",
        "spf",
        "dmarc",
        "dkim",
        "spoof-guard",
    ]) {
        println!("cargo::error={}", fault.to_string().replace('\n', " "));
    }
}
