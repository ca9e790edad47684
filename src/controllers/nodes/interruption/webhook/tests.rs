use std::io::Write as _;

use clap::Parser;
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::TcpListener,
    task::JoinHandle,
};

use super::{announcement::tests::spot, *};

/// Flags of a webhook alone.
#[derive(Debug, Parser)]
struct Flags {
    #[command(flatten)]
    webhook: WebhookArgs,
}

fn webhook(flags: &[&str]) -> Result<Option<Webhook>, WebhookError> {
    // reqwest takes the process-wide provider; a second call changes nothing.
    let _ = rustls::crypto::ring::default_provider().install_default();
    let flags = std::iter::once("tandem").chain(flags.iter().copied());
    Webhook::new(&Flags::try_parse_from(flags).unwrap().webhook)
}

/// A server for one request: its address, and what it was asked.
async fn server(status: &'static str) -> (String, JoinHandle<String>) {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = format!("http://{}", listener.local_addr().unwrap());
    let asked = tokio::spawn(async move {
        let (mut stream, _) = listener.accept().await.unwrap();
        let mut request = Vec::new();
        while !is_whole(&String::from_utf8_lossy(&request)) {
            assert_ne!(stream.read_buf(&mut request).await.unwrap(), 0, "the request ends before its body");
        }
        stream.write_all(format!("HTTP/1.1 {status}\r\ncontent-length: 0\r\n\r\n").as_bytes()).await.unwrap();
        String::from_utf8(request).unwrap()
    });
    (address, asked)
}

fn is_whole(request: &str) -> bool {
    let Some((head, body)) = request.split_once("\r\n\r\n") else { return false };
    let length = head.lines().find_map(|line| line.strip_prefix("content-length: "));
    length.is_some_and(|length| body.len() == length.parse::<usize>().unwrap())
}

async fn told(flags: &[&str]) -> Result<(), Untold> {
    let webhook = webhook(flags).unwrap().unwrap();
    webhook.post(webhook.text(&spot().announcement()).unwrap()).await
}

#[test]
fn without_an_address_there_is_none() {
    assert!(webhook(&[]).unwrap().is_none());
    assert!(webhook(&["--webhook-template={{ .No }}"]).unwrap().is_none());
}

#[tokio::test]
async fn it_is_told_with_the_template_and_the_headers_of_the_handler() {
    let (address, asked) = server("204 No Content").await;
    told(&["--webhook-url", &format!("{address}/services/token?a=b")]).await.unwrap();
    let asked = asked.await.unwrap();
    let (head, body) = asked.split_once("\r\n\r\n").unwrap();
    assert!(head.starts_with("POST /services/token?a=b HTTP/1.1\r\n"), "{head}");
    assert!(head.contains("content-type: application/json\r\n"), "{head}");
    let body: serde_json::Value = serde_json::from_str(body).unwrap();
    assert_eq!(
        body["text"],
        "[NTH][Instance Interruption] EventID: spot-itn-event-612d31 - Kind: SPOT_ITN - Instance: i-1 - Node: web-1 \
         - Description: Spot Interruption event received. Instance i-1 will be interrupted at \
         2020-07-01 22:19:58 +0000 UTC - Start Time: 2020-07-01 22:19:58 +0000 UTC"
    );
}

#[tokio::test]
async fn a_file_of_a_template_and_a_proxy_are_taken() {
    let (proxy, asked) = server("200 OK").await;
    let mut file = tempfile::NamedTempFile::new().unwrap();
    file.write_all(b"{{ .NodeName }} goes").unwrap();
    let flags = [
        "--webhook-url=http://hook.invalid/a",
        "--webhook-headers={\"Authorization\":\"Bearer hush\"}",
        "--webhook-proxy",
        &proxy,
        "--webhook-template-file",
        file.path().to_str().unwrap(),
    ];
    told(&flags).await.unwrap();
    let asked = asked.await.unwrap();
    assert!(asked.starts_with("POST http://hook.invalid/a HTTP/1.1\r\n"), "{asked}");
    assert!(asked.contains("authorization: Bearer hush\r\n"), "{asked}");
    assert!(asked.ends_with("\r\n\r\nweb-1 goes"), "{asked}");
}

#[tokio::test]
async fn a_failure_is_told_without_the_address() {
    let (address, _asked) = server("500 Internal Server Error").await;
    let refused = told(&["--webhook-url", &format!("{address}/hush")]).await.unwrap_err();
    assert_eq!(refused.to_string(), "it answers with status 500");

    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = format!("http://{}/hush", listener.local_addr().unwrap());
    drop(listener);
    let lost = told(&["--webhook-url", &url]).await.unwrap_err().to_string();
    assert!(lost.contains("refused") && !lost.contains("hush"), "{lost}");
}

#[tokio::test(start_paused = true)]
async fn one_that_hangs_is_given_up() {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = format!("http://{}/hush", listener.local_addr().unwrap());
    let lost = told(&["--webhook-url", &url]).await.unwrap_err().to_string();
    assert!(lost.contains("timed out") && !lost.contains("hush"), "{lost}");
}

#[test]
fn what_has_no_meaning_is_refused_and_no_secret_is_told() {
    let url = "--webhook-url=https://example.com/hush";
    let table: &[(&[&str], &str)] = &[
        (&["--webhook-url=example.com/hush"], "WEBHOOK_URL is no address"),
        (&["--webhook-url=ftp://example.com/hush"], "its scheme is \"ftp\""),
        (&[url, "--webhook-proxy=http://user:hush@:1:2"], "WEBHOOK_PROXY is no address"),
        (&[url, "--webhook-headers=\"hush\""], "WEBHOOK_HEADERS is no JSON object of texts"),
        (&[url, "--webhook-headers={\"A\":\"hush\\n\"}"], "WEBHOOK_HEADERS: \"A\""),
        (&[url, "--webhook-template={{ .Nodes }}"], "the field \".Nodes\" is unknown"),
        (&[url, "--webhook-template-file=/no/such/file"], "WEBHOOK_TEMPLATE_FILE \"/no/such/file\""),
    ];
    for (flags, wanted) in table {
        let error = webhook(flags).unwrap_err().to_string();
        assert!(error.contains(wanted) && !error.contains("hush"), "{flags:?}: {error}");
    }
    let webhook = webhook(&[url, "--webhook-headers={\"A\":\"hush\"}"]).unwrap();
    assert!(!format!("{webhook:?}").contains("hush"), "{webhook:?}");
}
