use std::future::Future;
use std::net::{IpAddr, SocketAddr, UdpSocket};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};

use bytes::Bytes;
use eventflow_api::labels;
use http::{Request, Response};
use http_body_util::{BodyExt, Full};
use hyper::body::Incoming;
use hyper::service::service_fn;
use hyper_util::rt::TokioIo;
use k8s_openapi::api::discovery::v1::EndpointSlice;
use kube::Api;
use kube::api::{Patch, PatchParams};
use serde_json::{Value, json};
use tokio::io::{AsyncReadExt, AsyncWriteExt, BufReader};
use tokio::net::{TcpListener, TcpStream};

use crate::common::{TestApp, eventually, limits};

/// A gateway and a tenant with functions.
pub struct Bed {
    pub app: TestApp,
    pub token: String,
    pub tenant: String,
}

impl Bed {
    pub async fn start() -> Self {
        Self::of(TestApp::start_with(limits()).await).await
    }

    /// As [`Bed::start`], with a tenant of the smallest tier: ten invocations at once, bodies of 1 MiB.
    pub async fn small() -> Self {
        let app = TestApp::start_with(limits()).await;
        let (token, tenant) = app.tenant_but(json!({"tier": "free"})).await;
        Self { app, token, tenant }
    }

    pub async fn of(app: TestApp) -> Self {
        let token = app.tenant().await;
        let tenant = app.get(&token, "/v1/me").await.json()["tenant"].as_str().unwrap().to_owned();
        Self { app, token, tenant }
    }

    /// A function, with these fields besides, that answers at these pods.
    pub async fn function(&self, name: &str, more: Value, pods: &[&Pod]) {
        let mut body = json!({"name": name, "image": "x:1", "port": 8080});
        body.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
        let reply = self.app.post(&self.token, "/v1/functions", body).await;
        assert!(reply.status.is_success(), "{reply:?}");
        for pod in pods {
            self.endpoint(name, pod.address, true).await;
        }
        let (tenant, function) = (self.tenant.parse().unwrap(), name.parse().unwrap());
        eventually("the gateway knows the function", async || {
            self.app.app.cluster.function(&tenant, &function).is_some()
        })
        .await;
    }

    /// Says as the cluster does that a pod of the function is ready, or ends; returns once the gateway knows.
    pub async fn endpoint(&self, function: &str, address: SocketAddr, ready: bool) {
        let namespace = format!("tenant-{}", self.tenant);
        let name = format!("fn-{function}-{}", address.port());
        let slice = json!({
            "apiVersion": "discovery.k8s.io/v1", "kind": "EndpointSlice",
            "metadata": {"name": name, "namespace": namespace, "labels": {
                "kubernetes.io/service-name": format!("fn-{function}"), labels::MANAGED_BY: labels::MANAGED_BY_VALUE}},
            "addressType": if address.is_ipv4() { "IPv4" } else { "IPv6" },
            "endpoints": [{"addresses": [address.ip().to_string()],
                "conditions": {"ready": ready, "serving": false, "terminating": !ready}}],
            "ports": [{"name": "http", "port": address.port(), "protocol": "TCP"}],
        });
        let api: Api<EndpointSlice> = Api::namespaced(self.app.kube.clone(), &namespace);
        api.patch(&name, &PatchParams::apply("test").force(), &Patch::Apply(&slice)).await.unwrap();
        eventually("the gateway knows the pod", async || {
            let pods = self.app.app.cluster.pods().get(&namespace, function);
            pods.is_some_and(|pods| pods.addresses().contains(&address)) == ready
        })
        .await;
    }

    pub fn path(&self, function: &str, rest: &str) -> String {
        format!("/v1/functions/{function}/http{rest}")
    }

    /// Sends this head and body on a connection of its own.
    pub async fn raw(&self, head: &str, body: &[u8]) -> Wire {
        let mut wire = Wire(BufReader::new(TcpStream::connect(self.app.address).await.unwrap()));
        let head = head.replace("TOKEN", &self.token).replace('\n', "\r\n");
        wire.write(head.as_bytes()).await;
        wire.write(body).await;
        wire
    }

    /// How many invocations ended so.
    pub async fn counted(&self, outcome: &str) -> u64 {
        let metrics = self.app.admin("/metrics").await;
        let text = String::from_utf8(metrics.body.to_vec()).unwrap();
        let line = format!("eventflow_invocations_total{{outcome=\"{outcome}\"}} ");
        text.lines().find_map(|found| found.strip_prefix(&line)).map_or(0, |count| count.parse().unwrap())
    }
}

/// One end of a connection.
pub struct Wire(pub BufReader<TcpStream>);

impl Wire {
    /// A head, or what there was before the end.
    pub async fn head(&mut self) -> String {
        let mut read = Vec::new();
        while !read.ends_with(b"\r\n\r\n") {
            match self.0.read_u8().await {
                Ok(byte) => read.push(byte),
                Err(_) => break,
            }
        }
        String::from_utf8_lossy(&read).to_ascii_lowercase()
    }

    pub async fn read(&mut self, length: usize) -> String {
        let mut read = vec![0; length];
        self.0.read_exact(&mut read).await.unwrap();
        String::from_utf8(read).unwrap()
    }

    /// Everything until the other side ends or breaks off.
    pub async fn rest(&mut self) -> String {
        let mut read = Vec::new();
        let _ = self.0.read_to_end(&mut read).await;
        String::from_utf8_lossy(&read).into_owned()
    }

    /// The other side may be gone.
    pub async fn write(&mut self, bytes: &[u8]) {
        let _ = self.0.get_mut().write_all(bytes).await;
    }
}

/// A stand-in for a pod.
pub struct Pod {
    pub address: SocketAddr,
    connections: Arc<AtomicUsize>,
    /// Heads of requests, for those who write them down.
    pub heads: Arc<Mutex<Vec<String>>>,
    task: tokio::task::JoinHandle<()>,
}

impl Pod {
    /// Does with each connection what `script` says.
    pub async fn scripted<F>(script: impl Fn(Wire, Arc<Mutex<Vec<String>>>) -> F + Send + 'static) -> Self
    where
        F: Future<Output = ()> + Send + 'static,
    {
        let listener = TcpListener::bind((own_address(), 0)).await.unwrap();
        let address = listener.local_addr().unwrap();
        let (connections, heads) = (Arc::new(AtomicUsize::new(0)), Arc::<Mutex<Vec<String>>>::default());
        let (counted, written) = (Arc::clone(&connections), Arc::clone(&heads));
        let task = tokio::spawn(async move {
            let mut scripts = tokio::task::JoinSet::new();
            loop {
                let (stream, _) = listener.accept().await.unwrap();
                counted.fetch_add(1, Ordering::Relaxed);
                scripts.spawn(script(Wire(BufReader::new(stream)), Arc::clone(&written)));
            }
        });
        Self { address, connections, heads, task }
    }

    /// Reads a request's head, writes `answer`, and closes.
    pub async fn saying(answer: impl Into<Vec<u8>>) -> Self {
        let answer = answer.into();
        Self::scripted(move |mut wire, heads| {
            let answer = answer.clone();
            async move {
                let head = wire.head().await;
                heads.lock().unwrap().push(head);
                wire.write(&answer).await;
            }
        })
        .await
    }

    /// Reads a request's head and says nothing until the other side goes.
    pub async fn silent() -> Self {
        Self::scripted(|mut wire, heads| async move {
            let head = wire.head().await;
            heads.lock().unwrap().push(head);
            wire.rest().await;
            heads.lock().unwrap().push("gone".to_owned());
        })
        .await
    }

    /// Answers with what the request was, as JSON.
    pub async fn echo() -> Self {
        Self::scripted(|wire, _| async move {
            let io = TokioIo::new(wire.0);
            let _ = hyper::server::conn::http1::Builder::new().serve_connection(io, service_fn(echo)).await;
        })
        .await
    }

    pub fn connections(&self) -> usize {
        self.connections.load(Ordering::Relaxed)
    }

    pub fn heads(&self) -> Vec<String> {
        self.heads.lock().unwrap().clone()
    }

    /// Ends at once: every connection breaks, and none is taken any more.
    pub fn kill(&self) {
        self.task.abort();
    }
}

impl Drop for Pod {
    fn drop(&mut self) {
        self.task.abort();
    }
}

async fn echo(request: Request<Incoming>) -> Result<Response<Full<Bytes>>, hyper::Error> {
    let (parts, body) = request.into_parts();
    let body = body.collect().await?;
    let trailers = body.trailers().cloned().unwrap_or_default();
    let list = |headers: &http::HeaderMap| -> Vec<(String, String)> {
        headers.iter().map(|(name, value)| (name.to_string(), value.to_str().unwrap().to_owned())).collect()
    };
    let answer = json!({
        "method": parts.method.as_str(), "target": parts.uri.to_string(), "version": format!("{:?}", parts.version),
        "headers": list(&parts.headers), "trailers": list(&trailers),
        "length": body.to_bytes().len(),
    });
    let response = Response::builder()
        .header("x-end", "e")
        .header("x-hop", "h")
        .header("connection", "x-hop")
        .header("keep-alive", "timeout=1")
        .header("set-cookie", "a=b")
        .header("x-eventflow-error", "internal");
    Ok(response.body(Full::from(answer.to_string())).unwrap())
}

/// The header's values in what [`Pod::echo`] answered.
pub fn header(echoed: &Value, name: &str) -> Vec<String> {
    let headers = echoed["headers"].as_array().unwrap();
    headers.iter().filter(|h| h[0] == name).map(|h| h[1].as_str().unwrap().to_owned()).collect()
}

/// An address of this machine that the API server takes for a pod's: not loopback.
fn own_address() -> IpAddr {
    let stand_in = devcluster::STAND_IN.parse().unwrap();
    if UdpSocket::bind((stand_in, 0)).is_ok() {
        return stand_in;
    }
    // In a cluster without namespaces of its own. Sends nothing; asks the system which address it would use.
    let socket = UdpSocket::bind("0.0.0.0:0").unwrap();
    socket.connect("192.0.2.1:9").unwrap();
    socket.local_addr().unwrap().ip()
}
