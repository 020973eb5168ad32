//! Clients that write and read without a pause, and remember what they were told: every acknowledged write is there
//! afterwards, and nothing is answered but 2xx or 503 with a time to come back.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicBool, AtomicI64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use reqwest::Method;
use serde_json::json;
use tokio::task::JoinHandle;

use crate::{Answer, Api, Fleet, Served};

/// What clients did and what they were told.
#[derive(Debug, Default)]
pub struct History {
    next: AtomicI64,
    /// By tenant: the ids whose insertion was acknowledged.
    acknowledged: Mutex<BTreeMap<String, Vec<i64>>>,
    /// Answers that are neither 2xx nor 503 with Retry-After.
    wrong: Mutex<Vec<String>>,
    /// The longest that an answer took.
    slowest: Mutex<Duration>,
    stop: AtomicBool,
    /// Where the server is now; it moves when it is ended and started again.
    url: Mutex<String>,
}

impl History {
    /// Of clients of this server.
    #[must_use]
    pub fn new(served: &Served) -> Arc<Self> {
        let history = Self { next: AtomicI64::new(1), ..Self::default() };
        history.go_to(served);
        Arc::new(history)
    }

    /// From now on clients ask this one.
    pub fn go_to(&self, served: &Served) {
        lock(&self.url).clone_from(&served.data_url);
    }

    /// Acknowledged writes so far.
    #[must_use]
    pub fn writes(&self) -> usize {
        lock(&self.acknowledged).values().map(Vec::len).sum()
    }

    /// The longest that an answer took.
    #[must_use]
    pub fn slowest(&self) -> Duration {
        *lock(&self.slowest)
    }

    /// Waits until so many more writes were acknowledged.
    ///
    /// # Panics
    /// When something else than 2xx or 503 with a time to come back was answered meanwhile.
    pub async fn more(&self, count: usize) {
        let enough = self.writes() + count;
        while self.writes() < enough {
            self.require_right();
            tokio::task::yield_now().await;
        }
    }

    /// One client for each of these tenants: a write and a read in turn, until told to stop.
    #[must_use]
    pub fn clients(self: &Arc<Self>, fleet: &Fleet, tenants: &[&str]) -> Vec<JoinHandle<()>> {
        let start = |tenant: &&str| {
            let (tenant, token) = ((*tenant).to_owned(), fleet.token(tenant, "writer"));
            tokio::spawn(Arc::clone(self).client(tenant, token))
        };
        tenants.iter().map(start).collect()
    }

    async fn client(self: Arc<Self>, tenant: String, token: String) {
        while !self.stop.load(Ordering::Relaxed) {
            let api = Api::new(&lock(&self.url).clone(), &token);
            let id = self.next.fetch_add(1, Ordering::Relaxed);
            if self.writes_one(&api, &tenant, id).await {
                self.reads_it(&api, &tenant, id).await;
            }
        }
    }

    /// A server that is gone may have done it or not: that write is in doubt, and not counted.
    async fn writes_one(&self, api: &Api, tenant: &str, id: i64) -> bool {
        let sql = format!("insert into tasks (id, title) values ({id}, 'w')");
        let Some(written) = self.ask(api, tenant, &sql).await else {
            tokio::task::yield_now().await;
            return false;
        };
        let done = self.is_right(&written);
        if done {
            lock(&self.acknowledged).entry(tenant.to_owned()).or_default().push(id);
        }
        done
    }

    /// True when it was done; anything but "come back later" is noted else.
    fn is_right(&self, answer: &Answer) -> bool {
        match answer.status {
            200 => {}
            503 if answer.headers.contains_key("retry-after") => {}
            other => lock(&self.wrong).push(format!("{other} {}", answer.body)),
        }
        answer.status == 200
    }

    async fn reads_it(&self, api: &Api, tenant: &str, id: i64) {
        let sql = format!("select count(*) from tasks where id = {id}");
        let Some(read) = self.ask(api, tenant, &sql).await else { return };
        if self.is_right(&read) && read.json()["rows"][0][0] != json!(1) {
            lock(&self.wrong).push(format!("{id} was acknowledged and is not there: {}", read.body));
        }
    }

    async fn ask(&self, api: &Api, tenant: &str, sql: &str) -> Option<Answer> {
        let begun = Instant::now();
        let answer = api.send(Method::POST, &format!("/t/{tenant}/query"), Some(&json!({"sql": sql}))).await.ok()?;
        let mut slowest = lock(&self.slowest);
        *slowest = begun.elapsed().max(*slowest);
        Some(answer)
    }

    fn require_right(&self) {
        let wrong = lock(&self.wrong);
        assert!(wrong.is_empty(), "{wrong:?}");
    }

    /// Stops the clients, and looks for every acknowledged write through the API.
    ///
    /// # Panics
    /// When one is not there, or something wrong was answered.
    pub async fn settle(&self, clients: Vec<JoinHandle<()>>, served: &Served, fleet: &Fleet) {
        self.stop.store(true, Ordering::Relaxed);
        for client in clients {
            client.await.expect("a client does not panic");
        }
        self.require_right();
        let acknowledged = lock(&self.acknowledged).clone();
        for (tenant, ids) in acknowledged {
            let found = all(&Api::new(&served.data_url, &fleet.token(&tenant, "reader")), &tenant).await;
            for id in &ids {
                assert!(found.binary_search(id).is_ok(), "the acknowledged write {id} of {tenant} was lost");
            }
        }
    }
}

/// The ids of all rows, in their order.
async fn all(api: &Api, tenant: &str) -> Vec<i64> {
    let mut found = Vec::new();
    loop {
        let after = found.last().copied().unwrap_or(0);
        let body = json!({"sql": format!("select id from tasks where id > {after} order by id limit 500")});
        let rows = api.post(&format!("/t/{tenant}/query"), &body).await.ok()["rows"].clone();
        let page: Vec<i64> = rows.as_array().into_iter().flatten().filter_map(|row| row[0].as_i64()).collect();
        if page.is_empty() {
            return found;
        }
        found.extend(page);
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
