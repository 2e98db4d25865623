//! The recipe of docs/async.md: a web server whose handler asks a pool of model workers.

use std::time::Duration;

use axum::Router;
use axum::extract::State;
use axum::http::StatusCode;
use axum::routing::post;
use subfeed::{BString, ErrorKind, Pool, Template};
use tokio::io::{AsyncReadExt, AsyncWriteExt};

use crate::executors::one_thread;

// recipe: begin
/// Workers that hold a model each, loaded once.
fn models() -> Pool<String, BString> {
    // In the place of `python3 model.py`: it loads, says that it is ready, and answers line by line.
    let model =
        "sleep 0.2; echo ready; while read -r text; do echo \"$text is ${#text} long\"; done";
    let template = Template::shell(model)
        .ready("ready\n", Duration::from_secs(60))
        .packet_timeout(Duration::from_secs(10));
    Pool::new(template, 2, 100).idle_after(Duration::from_secs(300))
}

async fn ask(State(models): State<Pool<String, BString>>, text: String) -> (StatusCode, String) {
    // A client that goes away drops this future: its answer is forgotten, and nobody else is disturbed.
    match models.call(text).await {
        Ok(answer) => (StatusCode::OK, answer.to_string()),
        Err(error) if error.kind() == ErrorKind::Timeout => {
            (StatusCode::GATEWAY_TIMEOUT, "the model takes too long".to_owned())
        }
        Err(error) if error.kind() == ErrorKind::Encode => {
            (StatusCode::BAD_REQUEST, "one line, please".to_owned())
        }
        Err(error) => (StatusCode::INTERNAL_SERVER_ERROR, error.to_string()),
    }
}

fn server(models: Pool<String, BString>) -> Router {
    Router::new().route("/ask", post(ask)).with_state(models)
}
// recipe: end

#[test]
fn a_web_server_asks_a_pool_of_models() {
    one_thread().block_on(async {
        let pool = models();
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let server = tokio::spawn(axum::serve(listener, server(pool.clone())).into_future());
        let request = async |text: &str| {
            let mut connection = tokio::net::TcpStream::connect(address).await.unwrap();
            let head = format!(
                "POST /ask HTTP/1.1\r\nHost: x\r\nConnection: close\r\nContent-Length: {}\r\n\r\n{text}",
                text.len()
            );
            connection.write_all(head.as_bytes()).await.unwrap();
            let mut response = String::new();
            connection.read_to_string(&mut response).await.unwrap();
            response
        };
        let (a, b) = tokio::join!(request("hello"), request("a model"));
        assert!(a.starts_with("HTTP/1.1 200") && a.ends_with("hello is 5 long"), "{a}");
        assert!(b.starts_with("HTTP/1.1 200") && b.ends_with("a model is 7 long"), "{b}");
        assert!(request("two\nlines").await.starts_with("HTTP/1.1 400"));
        server.abort();
        pool.close().await.unwrap();
    });
}

#[test]
fn the_page_shows_this_recipe() {
    let (_, recipe) = include_str!("recipe.rs").split_once("// recipe: begin\n").unwrap();
    let (recipe, _) = recipe.split_once("// recipe: end").unwrap();
    assert!(include_str!("../../../docs/async.md").contains(recipe), "docs/async.md");
}
