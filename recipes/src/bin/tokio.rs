//! A feed in an async program without the feature `async`: a blocking thread takes the replies and sends them to a channel.
//!
//! The channel is bounded, so a slow task stops the source, as a slow loop does. If the task ends, it drops the receiver. That ends
//! the loop and drops the feed on the blocking thread, where waiting for the workers blocks no task.
//!
//!     cargo run -p subfeed-recipes --bin tokio

use subfeed::{FeedExt, Template};
use tokio::sync::mpsc;
use tokio::task::spawn_blocking;

#[tokio::main(flavor = "current_thread")]
async fn main() -> Result<(), Box<dyn std::error::Error>> {
    let squares = Template::shell("while read n; do echo $((n * n)); done")
        .try_decode(|reply| Ok(reply.to_str()?.parse::<u64>()?));
    let (send, mut receive) = mpsc::channel(16);
    let feeding = spawn_blocking(move || {
        let numbers = (1u64..).map(|n| n.to_string());
        for square in numbers.feed_subprocesses_ordered(squares, 4, 100) {
            // The receiver is gone: this drops the feed, which ends the workers.
            if send.blocking_send(square).is_err() {
                break;
            }
        }
    });
    let mut sum = 0;
    for _ in 0..100 {
        sum += receive.recv().await.ok_or("the feed has ended")??;
    }
    drop(receive);
    feeding.await?;
    assert_eq!(sum, 338_350);
    println!("the sum of the first hundred squares is {sum}");
    Ok(())
}
