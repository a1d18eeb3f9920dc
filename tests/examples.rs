//! The examples say what they should, whatever is processed when.

#![allow(dead_code, clippy::duplicate_mod)] // their `main`s, and what they share

use std::error::Error;

#[path = "../examples/async_enrichment.rs"]
mod async_enrichment;
#[path = "../examples/dead_letters.rs"]
mod dead_letters;
#[path = "../examples/event_sourcing.rs"]
mod event_sourcing;
#[path = "../examples/final_results.rs"]
mod final_results;
#[path = "../examples/fraud.rs"]
mod fraud;
#[path = "../examples/sessions.rs"]
mod sessions;

#[tokio::test]
async fn sessions_over_a_click_log() -> Result<(), Box<dyn Error>> {
    let dir = tempfile::tempdir()?;
    let expected = "\
anna 09:00-09:43  / /docs /docs/windows /docs/sessions /docs/sessions /download
anna 10:15-10:15  /download
bara 09:01-09:07  / /pricing /signup
bara 11:10-11:40  /docs /docs/testing /download
cyril 09:20-09:41  /blog/one-journal /blog/exactly-once
cyril 10:20-10:34  / /docs
cyril 11:31-11:31  /blog/restore
dana 10:02-11:02  / /pricing /pricing /docs /signup
too late: 1";
    assert_eq!(sessions::run(dir.path().into()).await?.join("\n"), expected);
    Ok(())
}

#[tokio::test]
async fn final_results_only() -> Result<(), Box<dyn Error>> {
    let dir = tempfile::tempdir()?;
    let expected = "\
attic  18:00-18:15   78 Wh
attic  18:15-18:30  105 Wh
attic  18:30-18:45  132 Wh
cellar 18:00-18:15  204 Wh
cellar 18:15-18:30  195 Wh
cellar 18:30-18:45  186 Wh
The last quarter is still open.
The suppressed table says the same.";
    assert_eq!(final_results::run(dir.path().into()).await?.join("\n"), expected);
    Ok(())
}

#[tokio::test]
async fn event_sourcing_with_a_versioned_table() -> Result<(), Box<dyn Error>> {
    let dir = tempfile::tempdir()?;
    let expected = "\
order 1, in the evening: oolong at 3.80
order 2, at lunch: oolong at 5.00
order 3, in the morning: oolong at 4.50
order 4, in the morning: sencha at 3.80
order 5, at night: oolong had no price then";
    assert_eq!(event_sourcing::run(dir.path().into()).await?.join("\n"), expected);
    Ok(())
}

#[tokio::test]
async fn payments_that_cannot_be_booked_are_dead_letters() -> Result<(), Box<dyn Error>> {
    let dir = tempfile::tempdir()?;
    let expected = "\
anna has 15.28 EUR
bara, offset 1: Deserialization
cyril, offset 3: Panic
dana, offset 5: Deserialization";
    assert_eq!(dead_letters::run(dir.path().into()).await?.join("\n"), expected);
    Ok(())
}

#[tokio::test]
async fn orders_get_names_from_a_service_and_keep_their_order() -> Result<(), Box<dyn Error>> {
    let dir = tempfile::tempdir()?;
    let expected = "\
o-1 Cyril
o-2 Anna
o-3 Bara
o-5 Anna
o-6 Cyril
dead: o-4 c-9";
    assert_eq!(async_enrichment::run(dir.path().into()).await?.join("\n"), expected);
    Ok(())
}

#[tokio::test]
async fn payments_far_from_the_phone() -> Result<(), Box<dyn Error>> {
    let dir = tempfile::tempdir()?;
    let expected = "\
3105  08:16 phones in VN, 899.00: the phone is in DE
3105  08:17 watches in VN, 649.00: the phone is in DE
4711  08:19 fuel in PT, 159.00: the phone is in CZ
7120  08:21 jeweller in IT, 3100.00: the phone is silent
8283  08:46 tickets in PL, 520.00: the phone is in CZ";
    assert_eq!(fraud::run(dir.path().into()).await?.join("\n"), expected);
    Ok(())
}
