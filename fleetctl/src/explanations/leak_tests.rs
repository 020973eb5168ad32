//! Codes of `fleetctl leaktest`.

use super::{CodeExplanation, new_explanation};

pub(super) const ALL: &[CodeExplanation] = &[
    new_explanation(
        "address_invalid",
        "The application's address is not an HTTP address.",
        "a missing http:// in --url",
        "fleetctl leaktest --url http://127.0.0.1:3000",
    ),
    new_explanation(
        "application_unreachable",
        "The application did not answer a request of the test.",
        "an application that does not run, another port, or an application that ended during the test",
        "start the application, and look into its log",
    ),
    new_explanation(
        "answer_too_large",
        "An answer of the application is too large to be searched.",
        "a route that exports everything",
        "test with less data, or name the route in the list of exceptions",
    ),
    new_explanation(
        "class_unknown",
        "The settings of a leak test name a class of routes that does not exist.",
        "a spelling mistake in [classes] or in x-tenant-access",
        "use tenant, live, link, webhook, public or operator",
    ),
    new_explanation(
        "clock_invalid",
        "The clock of this machine is before 1970.",
        "a machine without a clock",
        "set the clock",
    ),
    new_explanation(
        "control_failed",
        "A tenant does not see its own data, so that the leak test would prove nothing.",
        "a credential that does not count, a wrong name of a tenant, or routes that need other bodies than the document says",
        "look at the answers in the message; give bodies in [[requests]]",
    ),
    new_explanation(
        "credential_missing",
        "A tenant of the leak test has no credential.",
        "no headers and no token_file for first or second in leaktest.toml",
        "first = { name = \"acme\", token_file = \"acme.token\" }",
    ),
    new_explanation(
        "document_invalid",
        "The text is not an OpenAPI 3 document with at least one operation.",
        "a web page or an error at that path, a document of version 2, or YAML",
        "fleetctl leaktest --openapi FILE, with the document as JSON",
    ),
    new_explanation(
        "exceptions_invalid",
        "A line in the list of exceptions is not a route.",
        "a path without its method",
        "write METHOD /path, for instance POST /t/{tenant}/session",
    ),
    new_explanation(
        "fingerprint_failed",
        "The leak test cannot read a tenant's whole database.",
        "a database that does not answer, or one that is too large for a test",
        "test with new tenants",
    ),
    new_explanation(
        "fleet_change_failed",
        "The fleet did not do what the leak test asked for.",
        "a token without the role admin, no space, or a server that does not answer",
        "fleetctl doctor; fleetctl op list",
    ),
    new_explanation(
        "output_unreadable",
        "A log or directory that the leak test has to search cannot be read.",
        "a wrong path, a missing right, or a file of more than 1 GiB",
        "name the files that the application writes, with --watch",
    ),
    new_explanation(
        "planting_failed",
        "The leak test cannot write rows into a tenant's database.",
        "a tenant that does not serve, or a token without the role writer",
        "fleetctl tenant list; fleetctl doctor",
    ),
    new_explanation(
        "probe_unknown",
        "A probe with this name does not exist.",
        "a spelling mistake in --probe",
        "use a name from the message",
    ),
    new_explanation(
        "request_invalid",
        "A request of the leak test cannot be sent over HTTP.",
        "a path in the OpenAPI document with spaces or other characters that a path cannot have",
        "correct the document",
    ),
    new_explanation(
        "route_unknown",
        "The settings of a leak test name a route that the OpenAPI document does not have.",
        "a spelling mistake, or a route that was removed",
        "write METHOD /path as in the document",
    ),
    new_explanation(
        "settings_invalid",
        "The settings of a leak test are not valid.",
        "a spelling mistake in leaktest.toml, or a file that it names and that cannot be read",
        "correct the place in the message",
    ),
    new_explanation(
        "tenants_equal",
        "The two tenants of a leak test are the same tenant.",
        "the same name or the same credential for first and second",
        "give two tenants, each with a credential of its own",
    ),
    new_explanation(
        "webhook_secret_invalid",
        "The secret of a webhook does not fit its style.",
        "a secret of the style standard that is not base64",
        "copy the secret again, with or without whsec_",
    ),
];
