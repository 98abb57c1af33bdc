//! `sqlx::migrate!` embeds the files that it finds; a new file is no change of this crate unless cargo is told so.

fn main() {
    println!("cargo:rerun-if-changed=../migrations");
}
