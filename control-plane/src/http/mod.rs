//! The only place that knows HTTP: the admin API, the data API, problems, health and the OpenAPI document.
