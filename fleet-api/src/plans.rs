//! Plans: named sets of limits that tenants share.

use serde::{Deserialize, Deserializer, Serialize};
use utoipa::{IntoParams, ToSchema};

use crate::bounded_number::{
    AnswerBytes, ConnectionLimit, OpenRequests, PageLimit, RequestBurst, RequestRate, RowsMax, StatementMilliseconds,
    StorageBytes,
};
use crate::changes::is_false;

/// Defines the limits twice: as they are, and as a change of them, in which null removes a limit.
macro_rules! plan_limits {
    ($($(#[doc = $doc:tt])+ $field:ident: $type:ident as $number:tt, $least:tt to $most:tt;)+) => {
        /// The limits of a plan. An absent limit is the one of the process.
        #[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
        #[serde(deny_unknown_fields)]
        pub struct PlanLimits {
            $($(#[doc = $doc])+
            #[serde(default, skip_serializing_if = "Option::is_none")]
            #[schema(value_type = Option<$number>, minimum = $least, maximum = $most)]
            pub $field: Option<$type>,)+
        }

        /// Changes of a plan's limits. An absent limit stays as it is; null removes one.
        #[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
        #[serde(deny_unknown_fields)]
        pub struct PlanLimitChanges {
            $($(#[doc = $doc])+
            #[serde(default, skip_serializing_if = "Option::is_none", deserialize_with = "present")]
            #[schema(value_type = Option<$number>, minimum = $least, maximum = $most)]
            pub $field: Option<Option<$type>>,)+
        }

        impl PlanLimitChanges {
            /// True when nothing would change.
            #[must_use]
            pub fn is_empty(&self) -> bool {
                *self == Self::default()
            }

            /// PURE: the limits after these changes.
            #[must_use]
            pub fn applied_to(self, limits: PlanLimits) -> PlanLimits {
                PlanLimits { $($field: self.$field.unwrap_or(limits.$field),)+ }
            }
        }
    };
}

plan_limits! {
    /// Requests per second to the tenant's data, in the whole fleet: 1 to 1,000,000.
    requests_per_second: RequestRate as u32, 1 to 1_000_000;
    /// Requests that may come at once after a pause: 1 to 10,000,000. Default: those of one second.
    burst: RequestBurst as u32, 1 to 10_000_000;
    /// Requests and open transactions at once, in the whole fleet: 1 to 100,000.
    concurrency: OpenRequests as u32, 1 to 100_000;
    /// Longest time of one statement in milliseconds: 1 to 3,600,000.
    statement_ms: StatementMilliseconds as u32, 1 to 3_600_000;
    /// Largest number of rows of one answer: 1 to 10,000.
    rows_max: RowsMax as u32, 1 to 10_000;
    /// Largest size of one answer in bytes: 1,024 to 1,073,741,824.
    answer_bytes_max: AnswerBytes as u64, 1_024 to 1_073_741_824;
    /// Largest size of the tenant's database in bytes: 1,048,576 to 9,007,199,254,740,991.
    storage_bytes_max: StorageBytes as u64, 1_048_576 to 9_007_199_254_740_991_u64;
    /// Largest number of connections of one process to the tenant's database: 1 to 1,000.
    connections_max: ConnectionLimit as u32, 1 to 1_000;
}

/// Reads a field that is present, so that null differs from an absent field.
pub(crate) fn present<'de, T: Deserialize<'de>, D: Deserializer<'de>>(
    deserializer: D,
) -> Result<Option<Option<T>>, D::Error> {
    Option::deserialize(deserializer).map(Some)
}

/// A plan to add.
#[derive(Debug, Clone, Default, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
#[schema(as = NewPlan)]
pub struct NewPlanRequest {
    /// Name of the plan: 1 to 63 of a-z, 0-9 and '-'. It never changes.
    pub name: String,
    /// Limits of the plan.
    #[serde(default)]
    pub limits: PlanLimits,
    /// True: only describe the change and do nothing.
    #[serde(default, skip_serializing_if = "is_false")]
    pub dry_run: bool,
    /// Reason of the change, for the audit log: one line of at most 1,000 bytes.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub reason: Option<String>,
}

/// A change of a plan.
#[derive(Debug, Clone, Default, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct PlanPatch {
    /// Limits to change.
    pub limits: PlanLimitChanges,
    /// True: only describe the change and do nothing.
    #[serde(default, skip_serializing_if = "is_false")]
    pub dry_run: bool,
    /// Reason of the change, for the audit log: one line of at most 1,000 bytes.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub reason: Option<String>,
}

/// A plan.
#[derive(Debug, Clone, Serialize, Deserialize, ToSchema)]
#[schema(as = Plan)]
pub struct LimitPlan {
    /// Name of the plan.
    pub name: String,
    /// Limits of the plan.
    pub limits: PlanLimits,
    /// Number of tenants that have the plan.
    pub tenants: i64,
    /// Time of creation, RFC 3339.
    pub created_at: String,
    /// Time of the last change, RFC 3339.
    pub updated_at: String,
}

/// A page of the list of plans.
#[derive(Debug, Clone, Default, Serialize, Deserialize, IntoParams)]
#[serde(deny_unknown_fields)]
#[into_params(parameter_in = Query)]
pub struct PlanListQuery {
    /// Maximum number of items per page: 1 to 1000. Default: 100.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[param(value_type = Option<u32>, minimum = 1, maximum = 1000)]
    pub limit: Option<PageLimit>,
    /// The `next_cursor` of the previous page. Absent: the first page.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub cursor: Option<String>,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn null_removes_a_limit_and_an_absent_one_stays() {
        let limits = |text| serde_json::from_str::<PlanLimits>(text).unwrap();
        let changes = |text| serde_json::from_str::<PlanLimitChanges>(text).unwrap();
        let before = limits(r#"{"burst": 7, "rows_max": 9, "concurrency": 3}"#);
        let after = changes(r#"{"burst": null, "rows_max": 10}"#).applied_to(before);
        assert_eq!(after, limits(r#"{"rows_max": 10, "concurrency": 3}"#));
        assert!(changes("{}").is_empty() && !changes(r#"{"burst": null}"#).is_empty());
        assert!(serde_json::from_str::<PlanLimits>(r#"{"burst": 0}"#).is_err());
    }
}
