//! Mistakes that do not compile, and what the compiler says to them.

#[test]
fn mistakes_do_not_compile_and_are_explained() {
    trybuild::TestCases::new().compile_fail("tests/compile_fail/*.rs");
}
