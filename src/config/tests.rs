//! What each variable may hold, and what a user is told when it holds something else.

use super::*;

fn read(vars: &[(&str, &str)]) -> Result<Config, Error> {
    Config::from_vars(vars.iter().map(|(name, value)| (name.to_string(), value.to_string())))
}

fn told(vars: &[(&str, &str)]) -> String {
    read(vars).unwrap_err().to_string()
}

#[test]
fn every_setting_is_read() {
    let config = read(&[
        (RANK, "1"),
        (WORLD_SIZE, "4"),
        (COMM_ID, "night run"),
        (TIMEOUT, "500ms"),
        (TRANSPORT, "tcp"),
        (ALGO, "ring"),
        (TUNING_FILE, "/etc/table"),
        (CPUS, "4,0-2"),
        (HEAP, "2G"),
        (FETCH, "never"),
        (HUGE_PAGES, "0"),
        (NAME, "tp"),
        (MAX_MEMORY, "512M"),
        (REPRODUCIBLE, "1"),
        (PROXY, "1"),
        (LAUNCHED, "1"),
        ("PMI_RANK", "3"),
        ("HOME", "/root"),
    ])
    .unwrap();
    assert_eq!((config.rank, config.size), (Some(1), Some(4)));
    assert_eq!((config.reproducible, config.proxy), (Some(true), Some(true)));
    assert_eq!((config.name.as_deref(), config.max_memory), (Some("tp"), Some(512 << 20)));
    assert_eq!(config.comm_id.as_deref(), Some("night run"));
    assert_eq!(config.timeout, Some(Duration::from_millis(500)));
    assert_eq!(config.transport, Some(TransportKind::Tcp));
    assert_eq!(config.algorithm.as_deref(), Some("ring"));
    assert_eq!(config.tuning_file.as_deref(), Some(Path::new("/etc/table")));
    assert_eq!(config.cpus, Some(vec![4, 0, 1, 2]));
    assert_eq!((config.heap_bytes, config.fetch), (Some(2 << 30), Some(Fetch::Never)));
    assert_eq!(config.huge_pages, Some(false));
    assert!(config.launched);
    assert_eq!(config.launcher.get("PMI_RANK").map(String::as_str), Some("3"));
    assert_eq!(config.launcher.len(), 1);
    assert!(config.warnings.is_empty());
}

#[test]
fn nothing_set_is_nothing_said() {
    let config = read(&[("PATH", "/bin"), (RANK, ""), (TIMEOUT, "")]).unwrap();
    assert_eq!((config.rank, config.timeout), (None, None));
    assert!(!config.launched && config.launcher.is_empty() && config.warnings.is_empty());
    assert!(config.secret().unwrap().is_none());
}

#[test]
fn bad_values_are_errors_with_variable_value_and_remedy() {
    for (name, value, remedy) in [
        (RANK, "-1", "0 or more"),
        (RANK, "one", "0 or more"),
        (RANK, "4294967296", "0 or more"),
        (WORLD_SIZE, "two", "1 or more"),
        (TIMEOUT, "0", "more than 0"),
        (TIMEOUT, "30 parsecs", "500ms"),
        (TIMEOUT, "9000h", "a year"),
        (TRANSPORT, "rdma", "shm or tcp"),
        (CPUS, "3-1", "0-3,8"),
        (CPUS, "0,,1", "0-3,8"),
        (CPUS, "1024", "0-3,8"),
        (CPUS, "0-4294967295", "0-3,8"),
        (CPUS, "0-2,1", "twice"),
        (REPRODUCIBLE, "maybe", "neither 1 nor 0"),
        (HEAP, "much", "64M"),
        (MAX_MEMORY, "all", "64M"),
        (HEAP, "99999999999T", "64M"),
        (HEAP, "G", "64M"),
        (SECRET_FD, "-3", "file descriptor"),
    ] {
        let told = told(&[(name, value)]);
        assert!(told.contains(name) && told.contains(value) && told.contains(remedy), "{told}");
    }
}

#[test]
fn a_slip_in_a_name_is_a_warning_with_the_right_name() {
    let config =
        read(&[("SOHU_COLL_TIMOUT", "3"), ("SOHU_COLL_COLOUR", "red"), ("SOHU_OTHER", "x")]).unwrap();
    assert_eq!(config.warnings.len(), 2);
    assert!(config.warnings[0].contains("SOHU_COLL_COLOUR") && config.warnings[0].contains(ALGO));
    assert!(config.warnings[1].contains(&format!("did you mean {TIMEOUT}?")), "{}", config.warnings[1]);
}

#[test]
fn edits_are_counted() {
    assert_eq!(edits("", "abc"), 3);
    assert_eq!(edits("abc", "abc"), 0);
    assert_eq!(edits("kitten", "sitting"), 3);
}

#[test]
fn two_secrets_are_one_too_many() {
    let told = told(&[(SECRET_FD, "3"), (SECRET_FILE, "/x")]);
    assert!(told.contains(SECRET_FD) && told.contains(SECRET_FILE), "{told}");
}

fn secret_in_memory(content: &[u8]) -> (std::os::fd::OwnedFd, Config) {
    use std::os::fd::AsRawFd;
    let memory = rustix::fs::memfd_create("test secret", rustix::fs::MemfdFlags::CLOEXEC).unwrap();
    assert_eq!(rustix::io::write(&memory, content).unwrap(), content.len());
    let config = read(&[(SECRET_FD, &memory.as_raw_fd().to_string())]).unwrap();
    (memory, config)
}

#[test]
fn a_secret_is_read_raw_or_in_digits_and_as_often_as_wanted() {
    let (_raw, config) = secret_in_memory(&[7; 32]);
    for _ in 0..2 {
        assert_eq!(config.secret().unwrap(), Some(Secret::new([7; 32])));
    }
    let (_digits, config) = secret_in_memory(format!("{}\n", "07".repeat(32)).as_bytes());
    assert_eq!(config.secret().unwrap(), Some(Secret::new([7; 32])));
}

#[test]
fn what_is_no_secret_is_refused_without_repeating_it() {
    for content in [&b""[..], &[7; 31], &[7; 33], "07".repeat(31).as_bytes(), "zz".repeat(32).as_bytes()] {
        let (_memory, config) = secret_in_memory(content);
        let told = config.secret().unwrap_err().to_string();
        assert!(told.contains(SECRET_FD) && told.contains("32 bytes") && !told.contains("zzz"), "{told}");
    }
    let missing = read(&[(SECRET_FILE, "/no/such/file")]).unwrap();
    assert!(missing.secret().unwrap_err().to_string().contains("/no/such/file"));
    let directory = read(&[(SECRET_FILE, "/proc")]).unwrap();
    assert!(directory.secret().unwrap_err().to_string().contains("is no file"));
}

#[test]
fn a_secret_that_others_can_read_is_refused() {
    let readable = read(&[(SECRET_FILE, "/proc/self/status")]).unwrap();
    let told = readable.secret().unwrap_err().to_string();
    assert!(told.contains("chmod 600"), "{told}");
}
