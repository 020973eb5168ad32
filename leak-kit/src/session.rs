//! One run of the kit against one application: sends requests and remembers keys and canaries.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use bytes::Bytes;
use http::{HeaderName, HeaderValue, Method, Request, header};
use percent_encoding::{AsciiSet, NON_ALPHANUMERIC, utf8_percent_encode};
use serde_json::Value;

use crate::application::{BodyStream, TestedApplication};
use crate::canary::Canaries;
use crate::databases::{FleetControl, TenantDatabases};
use crate::error::{KitError, Result};
use crate::exchange::Exchange;
use crate::known_values::KnownValues;
use crate::outputs::WatchedOutput;
use crate::request_example::filled_example;
use crate::route::{Route, RouteClass, RouteParameter};
use crate::values::{BodyShape, ValueMaker, type_of};
use crate::webhooks::WebhookSender;
use crate::world::{Caller, Side, TenantAddress, TenantNaming, World};

/// Characters of a path's part that are sent as they are.
const PLAIN: &AsciiSet = &NON_ALPHANUMERIC.remove(b'-').remove(b'_').remove(b'.').remove(b'~');

/// A request before it is sent.
#[derive(Debug, Clone)]
pub(crate) struct Call<'r> {
    pub(crate) route: &'r Route,
    pub(crate) address: TenantAddress,
    pub(crate) caller: Caller,
    /// The tenant whose keys and canaries the request carries.
    pub(crate) values: Side,
    /// Values of parameters, instead of those that the kit chooses.
    pub(crate) parameters: BTreeMap<String, String>,
    pub(crate) headers: Vec<(HeaderName, HeaderValue)>,
    /// More fields of the query.
    pub(crate) query: Vec<(String, String)>,
    /// The body, instead of the one that the kit makes.
    pub(crate) body: Option<Value>,
}

impl<'r> Call<'r> {
    /// The request that a member of the tenant sends to the own tenant.
    pub(crate) fn own(route: &'r Route, side: Side) -> Self {
        Self {
            route,
            address: TenantAddress::Of(side),
            caller: Caller::Member(side),
            values: side,
            parameters: BTreeMap::new(),
            headers: Vec::new(),
            query: Vec::new(),
            body: None,
        }
    }

    pub(crate) fn to(self, address: TenantAddress) -> Self {
        Self { address, ..self }
    }

    pub(crate) fn by(self, caller: Caller) -> Self {
        Self { caller, ..self }
    }

    pub(crate) fn parameter(mut self, name: &str, value: &str) -> Self {
        self.parameters.insert(name.to_owned(), value.to_owned());
        self
    }

    pub(crate) fn header(mut self, name: &str, value: &str) -> Self {
        if let (Ok(name), Ok(value)) = (HeaderName::try_from(name), HeaderValue::from_str(value)) {
            self.headers.push((name, value));
        }
        self
    }

    pub(crate) fn query(mut self, name: &str, value: &str) -> Self {
        self.query.push((name.to_owned(), value.to_owned()));
        self
    }

    pub(crate) fn body(self, body: Value) -> Self {
        Self { body: Some(body), ..self }
    }
}

/// What a run knows.
pub(crate) struct Session {
    application: Arc<dyn TestedApplication>,
    routes: Vec<Route>,
    pub(crate) world: World,
    pub(crate) canaries: Canaries,
    known: Mutex<KnownValues>,
    shapes: Mutex<BTreeMap<String, BodyShape>>,
    /// Routes that have answered their own tenant with success.
    reached: Mutex<BTreeMap<String, RouteReach>>,
    requests: AtomicU64,
    pub(crate) extras: SessionExtras,
}

/// What a route has shown its own tenant.
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct RouteReach {
    /// A text that the kit wrote straight into a table: the route's answers come from the tenant's database.
    pub(crate) shows_rows: bool,
}

/// Parts of a run that not every application has.
#[derive(Default)]
pub(crate) struct SessionExtras {
    pub(crate) databases: Option<Arc<dyn TenantDatabases>>,
    pub(crate) fleet: Option<Arc<dyn FleetControl>>,
    pub(crate) outputs: Vec<WatchedOutput>,
    pub(crate) webhooks: Vec<WebhookSender>,
    /// How long background work of the application may take.
    pub(crate) settle: Duration,
}

impl Session {
    pub(crate) fn new(
        application: Arc<dyn TestedApplication>,
        routes: Vec<Route>,
        world: World,
        extras: SessionExtras,
        seed: &[u8],
    ) -> Self {
        Self {
            application,
            routes,
            world,
            canaries: Canaries::new(seed),
            known: Mutex::default(),
            shapes: Mutex::default(),
            reached: Mutex::default(),
            requests: AtomicU64::new(0),
            extras,
        }
    }

    pub(crate) fn application(&self) -> &dyn TestedApplication {
        &*self.application
    }

    /// All routes of a class.
    pub(crate) fn routes(&self, class: RouteClass) -> impl Iterator<Item = &Route> {
        self.routes.iter().filter(move |route| route.class == Some(class))
    }

    /// All routes.
    pub(crate) fn all_routes(&self) -> &[Route] {
        &self.routes
    }

    /// Routes of a tenant's data that only read.
    pub(crate) fn reads(&self) -> impl Iterator<Item = &Route> {
        self.routes(RouteClass::Tenant).filter(|route| route.only_reads() && route.method != Method::HEAD)
    }

    /// Routes that change a tenant's data.
    pub(crate) fn writes(&self) -> impl Iterator<Item = &Route> {
        self.routes(RouteClass::Tenant).filter(|route| !route.only_reads())
    }

    /// Whether a request to this route can name a tenant other than the credential's.
    pub(crate) fn can_name_tenants(&self, route: &Route) -> bool {
        match self.world.naming_kind() {
            TenantNaming::Credential => false,
            TenantNaming::Path => route.tenant_parameter.is_some(),
            TenantNaming::Host(_) | TenantNaming::Header(_) => true,
        }
    }

    /// How many requests were sent.
    pub(crate) fn request_count(&self) -> u64 {
        self.requests.load(Ordering::Relaxed)
    }

    pub(crate) fn known(&self) -> MutexGuard<'_, KnownValues> {
        self.known.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// What the route has shown its own tenant; `None` before it answered with success.
    pub(crate) fn reach_of(&self, label: &str) -> Option<RouteReach> {
        self.reached.lock().unwrap_or_else(PoisonError::into_inner).get(label).copied()
    }

    /// Sends the request that a member sends to the own tenant, and learns from the answer. If the application refuses a body
    /// with all fields, the required ones are sent.
    pub(crate) async fn send_own(&self, route: &Route, side: Side) -> Result<Exchange> {
        self.send_as_owner(Call::own(route, side)).await
    }

    /// As [`Session::send_own`], with changes of the request.
    pub(crate) async fn send_as_owner(&self, call: Call<'_>) -> Result<Exchange> {
        let (route, side) = (call.route, call.values);
        let current = self.current_row(&call).await?;
        let mut exchange = self.send_with(&call, current.as_ref()).await?;
        if exchange.status.is_client_error() && route.body.is_some() && call.body.is_none() {
            self.set_shape(route, BodyShape::Required);
            let again = self.send_with(&call, current.as_ref()).await?;
            if again.is_success() {
                exchange = again;
            } else {
                self.set_shape(route, BodyShape::All);
            }
        }
        self.learn_from(route, side, &exchange);
        Ok(exchange)
    }

    fn learn_from(&self, route: &Route, side: Side, exchange: &Exchange) {
        if !exchange.is_success() {
            return;
        }
        self.known().learn(&self.routes, route, side, &exchange.json());
        let shows_rows = self.canaries.has_stored(&exchange.body, side);
        let mut reached = self.reached.lock().unwrap_or_else(PoisonError::into_inner);
        reached.entry(route.label()).or_default().shows_rows |= shows_rows;
    }

    /// The row that a change is about, as its own tenant sees it now.
    async fn current_row(&self, call: &Call<'_>) -> Result<Option<Value>> {
        if !matches!(call.route.method, Method::PUT | Method::PATCH | Method::DELETE) || call.body.is_some() {
            return Ok(None);
        }
        let is_row = |route: &&Route| {
            let rest = call.route.template.strip_prefix(&route.template);
            route.path_parameters().next().is_some()
                && rest.is_some_and(|rest| rest.is_empty() || rest.starts_with('/'))
        };
        let Some(show) = self.reads().filter(is_row).max_by_key(|route| route.template.len()) else { return Ok(None) };
        let show = Call { route: show, headers: Vec::new(), query: Vec::new(), ..call.clone() };
        let shown = self.send_with(&show, None).await?;
        Ok(Some(shown.json()).filter(Value::is_object))
    }

    /// Sends a request as it is.
    pub(crate) async fn send(&self, call: &Call<'_>) -> Result<Exchange> {
        self.send_with(call, None).await
    }

    async fn send_with(&self, call: &Call<'_>, current: Option<&Value>) -> Result<Exchange> {
        let (path, shown) = (self.path_of(call), self.request_text(call));
        let request = self.build_request(call, &path, current)?;
        self.requests.fetch_add(1, Ordering::Relaxed);
        let (parts, body) = self.application.send(request).await?.into_parts();
        Ok(Exchange { request: shown, path, status: parts.status, headers: parts.headers, body })
    }

    /// Sends a GET to a path that an answer named.
    pub(crate) async fn follow(&self, path: &str, caller: Caller, address: &TenantAddress) -> Result<Exchange> {
        let headers = [self.world.address_headers(address), self.world.caller_headers(caller)].concat();
        let request = request_with(Method::GET, path, &headers, Bytes::new())?;
        self.requests.fetch_add(1, Ordering::Relaxed);
        let (parts, body) = self.application.send(request).await?.into_parts();
        let request = format!("GET {path} as {}", caller_word(caller));
        Ok(Exchange { request, path: path.to_owned(), status: parts.status, headers: parts.headers, body })
    }

    /// Opens a long connection. Returns the head of the answer, and its body as it comes.
    pub(crate) async fn open(&self, call: &Call<'_>) -> Result<http::Response<BodyStream>> {
        let request = self.build_request(call, &self.path_of(call), None)?;
        self.requests.fetch_add(1, Ordering::Relaxed);
        self.application.open(request).await
    }

    fn build_request(&self, call: &Call<'_>, path: &str, current: Option<&Value>) -> Result<Request<Bytes>> {
        let mut headers = self.world.address_headers(&call.address);
        headers.extend(self.world.caller_headers(call.caller));
        headers.extend(call.headers.clone());
        let body = call.body.clone().or_else(|| self.make_body(call, current));
        let body = body.map(|body| Bytes::from(body.to_string()));
        if body.is_some() {
            headers.push((header::CONTENT_TYPE, HeaderValue::from_static("application/json")));
        }
        request_with(call.route.method.clone(), path, &headers, body.unwrap_or_default())
    }

    /// The body of a request. Numbers and truth values of a row that exists are repeated, for instance its version.
    pub(crate) fn make_body(&self, call: &Call<'_>, current: Option<&Value>) -> Option<Value> {
        let shape = self.shapes.lock().unwrap_or_else(PoisonError::into_inner).get(&call.route.label()).copied();
        let (shape, place) = (shape.unwrap_or_default(), call.route.label());
        let recorded = call.route.body.as_ref().and_then(|schema| schema.get("example"));
        match (&call.route.example, recorded) {
            // The application refuses the canaries of this recorded body.
            (Some(_), Some(recorded)) if shape == BodyShape::Required => return Some(recorded.clone()),
            (Some(example), _) => return Some(filled_example(example, &self.canaries, call.values, &place)),
            _ => {}
        }
        let schema = call.route.body.as_ref()?;
        let maker = ValueMaker { canaries: &self.canaries, side: call.values, shape, place };
        let mut body = maker.make(schema);
        for (name, value) in body.as_object_mut().into_iter().flatten() {
            let shown = current.and_then(|row| row.get(name)).filter(|shown| !shown.is_string() && !shown.is_null());
            if let Some(shown) = shown {
                *value = shown.clone();
            }
        }
        Some(body)
    }

    fn set_shape(&self, route: &Route, shape: BodyShape) {
        self.shapes.lock().unwrap_or_else(PoisonError::into_inner).insert(route.label(), shape);
    }

    /// The path and the query of a request.
    pub(crate) fn path_of(&self, call: &Call<'_>) -> String {
        let mut path = call.route.template.clone();
        if let Some(parameter) = &call.route.tenant_parameter {
            path = path.replace(&format!("{{{parameter}}}"), &self.world.name_of(&call.address));
        }
        for parameter in call.route.path_parameters() {
            let value = self.parameter_value(call, parameter);
            let value = utf8_percent_encode(&value, PLAIN).to_string();
            path = path.replace(&format!("{{{}}}", parameter.name), &value);
        }
        let chosen = call.route.query_parameters().filter_map(|parameter| {
            let chosen = call.parameters.get(&parameter.name).cloned();
            let needed = || parameter.required.then(|| self.parameter_value(call, parameter));
            Some((parameter.name.clone(), chosen.or_else(needed)?))
        });
        let pairs: Vec<_> = chosen.chain(call.query.iter().cloned()).collect();
        if pairs.is_empty() {
            return path;
        }
        let query = url::form_urlencoded::Serializer::new(String::new()).extend_pairs(pairs).finish();
        format!("{path}?{query}")
    }

    fn parameter_value(&self, call: &Call<'_>, parameter: &RouteParameter) -> String {
        if let Some(value) = call.parameters.get(&parameter.name) {
            return value.clone();
        }
        if let Some(key) = self.known().of(call.values, call.route, &parameter.name).first() {
            return key.clone();
        }
        let schema = &parameter.schema;
        let suggested = [&schema["example"], &schema["default"], &schema["enum"][0]];
        match suggested.into_iter().find(|value| !value.is_null()) {
            Some(Value::String(text)) => text.clone(),
            Some(value) => value.to_string(),
            None if matches!(type_of(schema), "integer" | "number") => "1".to_owned(),
            // Without a name of a row both tenants use the same one.
            None => "leak-kit".to_owned(),
        }
    }

    fn request_text(&self, call: &Call<'_>) -> String {
        let more: Vec<_> = call
            .headers
            .iter()
            .map(|(name, value)| format!(" {name}: {}", String::from_utf8_lossy(value.as_bytes())))
            .collect();
        let address = match (&call.route.tenant_parameter, &call.address) {
            (None, TenantAddress::Of(side)) => format!(" to tenant {}", side.letter()),
            _ => String::new(),
        };
        let caller = caller_word(call.caller);
        format!("{} {} as {caller}{address}{}", call.route.method, self.path_of(call), more.concat())
    }

    /// Waits until background work of the application is done.
    pub(crate) async fn settle(&self) {
        tokio::time::sleep(self.extras.settle).await;
    }
}

pub(crate) fn caller_word(caller: Caller) -> &'static str {
    match caller {
        Caller::Member(Side::First) => "tenant a",
        Caller::Member(Side::Second) => "tenant b",
        Caller::Nobody => "nobody",
        Caller::Stranger => "a stranger",
    }
}

fn request_with(
    method: Method,
    path: &str,
    headers: &[(HeaderName, HeaderValue)],
    body: Bytes,
) -> Result<Request<Bytes>> {
    let invalid =
        |error: http::Error| KitError::new("request_invalid", format!("the path {path:?} cannot be sent: {error}"));
    let mut request = Request::builder().method(method).uri(path).body(body).map_err(invalid)?;
    for (name, value) in headers {
        request.headers_mut().append(name.clone(), value.clone());
    }
    Ok(request)
}
