use devcluster::{Proxy, TestCluster};
use serde_json::json;

use crate::bed::{Bed, Pod};
use crate::common::{TestApp, eventually, limits};

#[tokio::test]
async fn invocations_need_neither_the_database_nor_the_api_server() {
    let cluster = TestCluster::attach().unwrap();
    let database = Proxy::start(cluster.database_address()).unwrap();
    let api = Proxy::start(&cluster.api_server_address().unwrap()).unwrap();
    let (database_at, api_at) = (database.address().to_string(), api.address().to_string());
    let app = TestApp::start_through(limits(), Some(&database_at), Some(&api_at)).await;
    let (bed, pod) = (Bed::of(app).await, Pod::echo().await);
    bed.function("hello", json!({}), &[&pod]).await;
    database.cut();
    api.cut();
    eventually("the database is away", async || bed.app.get(&bed.token, "/v1/audit").await.status.as_u16() == 503)
        .await;
    for _ in 0..20 {
        let reply = bed.app.get(&bed.token, &bed.path("hello", "/")).await;
        assert_eq!(reply.status.as_u16(), 200, "{reply:?}");
    }
    database.restore();
    api.restore();
    let next = Pod::echo().await;
    bed.endpoint("hello", next.address, true).await;
}
