//! One HTTP/1.1 connection per client of the load, and nothing around it: the generator shares the machine with the
//! server, so each layer left out is measured less.

use std::time::Duration;

use bytes::{Bytes, BytesMut};
use http::{HeaderMap, HeaderName, HeaderValue, Method, Request, StatusCode, Uri};
use http_body_util::{BodyExt, Full};
use hyper::client::conn::http1::{SendRequest, handshake};
use hyper_util::rt::TokioIo;
use tokio::net::TcpStream;
use tokio::time::timeout;
use uuid::Uuid;

/// The server holds a repeat back for at most 30 s while the first still runs, and waits at most 30 s for a saga.
const ANSWER_WITHIN: Duration = Duration::from_secs(65);

/// An answer; the body only of what is not 2xx: nobody reads the others.
#[derive(Debug)]
pub(super) struct Reply {
    /// Its status.
    pub(super) status: StatusCode,
    /// Its headers.
    pub(super) headers: HeaderMap,
    /// Its body, unless 2xx.
    pub(super) body: Bytes,
}

/// The connection broke, could not be made, or nothing came in time.
#[derive(Debug)]
pub(super) struct Lost;

/// A connection that is made again when it was lost.
pub(super) struct Wire {
    authority: String,
    /// Sent with every request.
    headers: HeaderMap,
    sender: Option<SendRequest<Full<Bytes>>>,
}

impl Wire {
    /// To `host:port`; connects when first used.
    pub(super) fn new(authority: &str) -> Self {
        let mut headers = HeaderMap::new();
        if let Ok(host) = HeaderValue::from_str(authority) {
            headers.insert(http::header::HOST, host);
        }
        headers.insert(http::header::CONTENT_TYPE, HeaderValue::from_static("application/json"));
        Self { authority: authority.to_owned(), headers, sender: None }
    }

    /// Sends one command and takes its answer.
    pub(super) async fn post(&mut self, uri: &Uri, key: Uuid, body: Bytes, wait: bool) -> Result<Reply, Lost> {
        const IDEMPOTENCY_KEY: HeaderName = HeaderName::from_static("idempotency-key");
        const PREFER: HeaderName = HeaderName::from_static("prefer");
        let mut request = Request::new(Full::new(body));
        *request.method_mut() = Method::POST;
        *request.uri_mut() = uri.clone();
        let headers = request.headers_mut();
        headers.clone_from(&self.headers);
        let mut text = Uuid::encode_buffer();
        let key = HeaderValue::from_str(key.hyphenated().encode_lower(&mut text)).map_err(|_| Lost)?;
        headers.insert(IDEMPOTENCY_KEY, key);
        if wait {
            headers.insert(PREFER, HeaderValue::from_static("wait=30"));
        }
        let answered = timeout(ANSWER_WITHIN, self.exchange(request)).await;
        match answered {
            Ok(Ok(reply)) => Ok(reply),
            Ok(Err(_)) | Err(_) => {
                self.sender = None;
                Err(Lost)
            }
        }
    }

    async fn exchange(
        &mut self,
        request: Request<Full<Bytes>>,
    ) -> Result<Reply, Box<dyn std::error::Error + Send + Sync>> {
        // A connection may close between two requests; that is noticed here and no request is lost with it.
        let idle = match self.sender.take() {
            Some(mut sender) => sender.ready().await.is_ok().then_some(sender),
            None => None,
        };
        let sender = match idle {
            Some(sender) => sender,
            None => self.connect().await?,
        };
        let sender = self.sender.insert(sender);
        let response = sender.send_request(request).await?;
        let (head, mut body) = response.into_parts();
        let keep = !head.status.is_success();
        let mut kept = BytesMut::new();
        while let Some(frame) = body.frame().await {
            if let (true, Some(data)) = (keep, frame?.data_ref()) {
                kept.extend_from_slice(data);
            }
        }
        Ok(Reply { status: head.status, headers: head.headers, body: kept.freeze() })
    }

    async fn connect(&self) -> Result<SendRequest<Full<Bytes>>, Box<dyn std::error::Error + Send + Sync>> {
        let stream = TcpStream::connect(&self.authority).await?;
        stream.set_nodelay(true)?;
        let (sender, connection) = handshake(TokioIo::new(stream)).await?;
        // Ends with the connection; what breaks it is told to whoever waits for an answer.
        tokio::spawn(async move {
            let _ = connection.await;
        });
        Ok(sender)
    }
}
