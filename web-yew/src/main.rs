//! Starts the app in the page that loads it.

fn main() {
    fanledger_web::start();
}
