// Open pages for the examples of realtime in docs/embedding.md.

use futures_util::StreamExt as _;
use tokio_tungstenite::tungstenite;

type Socket = tokio_tungstenite::WebSocketStream<tokio_tungstenite::MaybeTlsStream<tokio::net::TcpStream>>;

/// Opens a page, and waits until every later message comes.
async fn open_page(address: std::net::SocketAddr, path: &str, token: &str) -> Socket {
    use tungstenite::client::IntoClientRequest as _;

    let mut request = format!("ws://{address}{path}").into_client_request().unwrap();
    request.headers_mut().insert("authorization", format!("Bearer {token}").parse().unwrap());
    let (mut socket, _) = tokio_tungstenite::connect_async(request).await.unwrap();
    assert_eq!(next_message(&mut socket).await["type"], "ready");
    socket
}

async fn next_message(socket: &mut Socket) -> serde_json::Value {
    let next = tokio::time::timeout(std::time::Duration::from_secs(30), socket.next()).await;
    let text = next.expect("a message comes").unwrap().unwrap().into_text().unwrap();
    serde_json::from_str(&text).unwrap()
}
