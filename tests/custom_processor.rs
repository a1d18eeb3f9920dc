//! The example of a processor written by hand.

#![allow(clippy::unwrap_used)] // a test fails by panicking

#[path = "../examples/custom_processor.rs"]
#[allow(unreachable_pub)]
mod custom_processor;

#[tokio::test]
async fn floods_and_silent_gauges_are_reported() {
    let dir = tempfile::tempdir().unwrap();
    let warnings = custom_processor::run(&dir.path().join("gauges")).await.unwrap();
    let expected = [
        "minute 62: Vyšší Brod: 170 cm, 75 cm more than an hour ago",
        "minute 184: České Budějovice: 212 cm, 94 cm more than an hour ago",
        "minute 244: Praha: 139 cm, 76 cm more than an hour ago",
        "minute 244: České Budějovice: silent for an hour",
        "minute 300: Praha: 204 cm, 65 cm more than an hour ago",
        "minute 300: Vyšší Brod: silent for an hour",
        "minute 300: České Budějovice: silent for an hour",
    ];
    assert_eq!(warnings, expected);
}
