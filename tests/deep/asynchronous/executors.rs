//! The same body on each executor.

use std::future::Future;
use std::pin::Pin;

pub(crate) use self::block_on::block_on;

#[path = "../../common/block_on.rs"]
mod block_on;

pub(crate) fn one_thread() -> tokio::runtime::Runtime {
    tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap()
}

pub(crate) fn two_threads() -> tokio::runtime::Runtime {
    tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build().unwrap()
}

type Run = fn(Body);
type Body = Pin<Box<dyn Future<Output = ()> + Send>>;

/// Runs what `body` makes on each of them.
pub(crate) fn on_each<F: Future<Output = ()> + Send + 'static>(body: impl Fn() -> F) {
    let run: [(&str, Run); 4] = [
        ("tokio, one thread", |body| one_thread().block_on(body)),
        ("tokio, two threads", |body| {
            let runtime = two_threads();
            runtime.block_on(runtime.spawn(body)).unwrap();
        }),
        ("smol", |body| smol::block_on(smol::spawn(body))),
        ("by hand", block_on),
    ];
    for (name, run) in run {
        println!("on {name}");
        run(Box::pin(body()));
    }
}
