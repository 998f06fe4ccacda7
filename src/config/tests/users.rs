//! `[django.user]`: conditions that are no slips, and where the groups are.

use super::*;

fn user(lines: &str) -> Result<Loaded, Vec<String>> {
    parse(&edited("cookie = { secure = true }", lines))
}

#[test]
fn a_condition_stays_inside_of_its_parentheses() {
    for good in [
        "is_active",
        "is_active AND (NOT is_locked OR role IN ('a', 'b'))",
        "name <> 'it''s ) OR (' AND is_active",
        "is_active::int = 1",
        r#""isActive" AND role <> ')'"#,
        "`is_active`",
        "TRUE",
    ] {
        assert_eq!(value::condition(good).ok().as_deref(), Some(good));
    }
    for bad in [
        "",
        "  ",
        "is_active) OR (TRUE",
        "is_active) OR (1=1",
        "is_active)",
        "(is_active",
        "name <> ') OR (' ) OR (TRUE",
        "name <> 'a",
        "name <> '('')",
        r#"is_active OR "a"#,
        "`is_active",
        "is_active -- AND NOT is_locked",
        "is_active # AND NOT is_locked",
        "is_active /* AND NOT is_locked",
        "is_active; DROP TABLE auth_user",
        r"name <> E'\'' OR TRUE",
        "name <> $$a$$",
        "id = $1",
        "id = ?",
        "id = :id",
        "id = ::int:x",
        "is_active\0",
    ] {
        assert!(value::condition(bad).is_err(), "{bad:?}");
    }
}

#[test]
fn a_condition_that_forgets_is_active_is_remarked_on() {
    let remarks = |lines: &str| user(lines).unwrap().remarks;
    let told = |remark: &&Remark| remark.to_string().contains("takes the place of is_active");
    for (condition, count) in [("is_active AND NOT is_locked", 0), ("NOT is_locked", 1)] {
        let remarks = remarks(&format!("user = {{ where = '{condition}' }}"));
        assert_eq!(remarks.iter().filter(told).count(), count, "{condition}");
    }
}

#[test]
fn memberships_are_by_default_those_of_the_user_table() {
    for (lines, members) in [
        ("", "auth_user_groups"),
        ("user = { table = 'people_member' }", "people_member_groups"),
        ("user = { table = 'people.member' }", "people.member_groups"),
    ] {
        let groups = user(lines).unwrap().config.django.user.groups;
        assert_eq!(groups, (members.to_owned(), "auth_group".to_owned()));
    }
}
