//! A route of the application, and its class.

use http::Method;
use serde_json::Value;

/// What a route is for. It decides which probes use the route.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum RouteClass {
    /// Data of the tenant that the request names, for its members.
    Tenant,
    /// A long connection of one tenant: server-sent events or a WebSocket.
    Live,
    /// A signed address: its holder needs no sign-in.
    Link,
    /// Called by another service, with a signature.
    Webhook,
    /// Everyone may call it, and it has no tenant's data.
    Public,
    /// For operators. A tenant's credential must not open it.
    Operator,
}

impl RouteClass {
    /// The words of documents and configuration files.
    pub const WORDS: [(&str, Self); 6] = [
        ("tenant", Self::Tenant),
        ("live", Self::Live),
        ("link", Self::Link),
        ("webhook", Self::Webhook),
        ("public", Self::Public),
        ("operator", Self::Operator),
    ];

    /// The class of a word.
    #[must_use]
    pub fn from_word(word: &str) -> Option<Self> {
        Self::WORDS.into_iter().find(|(known, _)| *known == word).map(|(_, class)| class)
    }

    /// The word of the class.
    #[must_use]
    pub fn word(self) -> &'static str {
        Self::WORDS.into_iter().find(|(_, class)| *class == self).map_or("", |(word, _)| word)
    }
}

/// One route: a method and the template of a path.
#[derive(Debug, Clone)]
pub struct Route {
    /// The method.
    pub method: Method,
    /// The path with its parameters in braces: `/t/{tenant}/tasks/{task}`.
    pub template: String,
    /// The class; `None` when nothing says it.
    pub class: Option<RouteClass>,
    /// The parameter of the path that names the tenant.
    pub tenant_parameter: Option<String>,
    /// Parameters of path and query, without the tenant's.
    pub parameters: Vec<RouteParameter>,
    /// The schema of the JSON body.
    pub body: Option<Value>,
    /// A body that the application accepts; `{canary}` in its texts becomes a canary. The kit makes one from the schema
    /// otherwise.
    pub example: Option<Value>,
    /// Whether the route only reads.
    pub reads: bool,
}

/// A parameter of a route.
#[derive(Debug, Clone)]
pub struct RouteParameter {
    /// Its name.
    pub name: String,
    /// Whether it is a part of the path or of the query.
    pub place: ParameterPlace,
    /// Whether a request needs it.
    pub required: bool,
    /// Its JSON schema, with an `example` if the document has one.
    pub schema: Value,
}

/// Where a parameter stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ParameterPlace {
    /// In the path.
    Path,
    /// In the query.
    Query,
}

impl Route {
    /// Method and template: the route's name in reports and configuration files.
    #[must_use]
    pub fn label(&self) -> String {
        format!("{} {}", self.method, self.template)
    }

    /// Whether the route only reads.
    #[must_use]
    pub fn only_reads(&self) -> bool {
        self.reads
    }

    /// Parameters of the path other than the tenant's.
    pub fn path_parameters(&self) -> impl Iterator<Item = &RouteParameter> {
        self.parameters.iter().filter(|parameter| parameter.place == ParameterPlace::Path)
    }

    /// Parameters of the query.
    pub fn query_parameters(&self) -> impl Iterator<Item = &RouteParameter> {
        self.parameters.iter().filter(|parameter| parameter.place == ParameterPlace::Query)
    }

    /// The template up to a parameter, with the parameter. Routes that share it share its values.
    pub(crate) fn prefix_of(&self, parameter: &str) -> &str {
        let braced = format!("{{{parameter}}}");
        let end = self.template.find(&braced).map_or(self.template.len(), |at| at + braced.len());
        &self.template[..end]
    }

    /// Whether the route is below this prefix of a template.
    pub(crate) fn collection(&self) -> String {
        format!("{}/", self.template.trim_end_matches('/'))
    }
}
