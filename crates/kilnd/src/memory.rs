//! How this process takes memory from the system, and gives it back.

/// Arenas of the allocator. Each keeps what it was given, and glibc makes eight for each processor, as threads come. On 2 cores, with
/// contexts of 20,000 files and a zstd layer of 512 MiB, the highest resident size was 123 MiB with as many as it likes, 96 MiB with two,
/// 89 MiB with one; one cost a twentieth of the time, two nothing that could be measured.
#[cfg(target_env = "gnu")]
const ARENAS_MAX: i32 = 2;

/// Limits the allocator's arenas. Call it before there are threads.
#[cfg(target_env = "gnu")]
pub fn limit_arenas() {
    // The standard library has no way to say it, and an environment variable would be handed down to steps.
    // It is a hint: what cannot be set stays as it is.
    // SAFETY: the function sets a number in the allocator, under the allocator's lock.
    #[allow(unsafe_code)]
    let _ = unsafe { libc::mallopt(libc::M_ARENA_MAX, ARENAS_MAX) };
}

/// Other allocators have no arenas to limit.
#[cfg(not(target_env = "gnu"))]
pub fn limit_arenas() {}

/// Gives back what is free. The allocator keeps it, each arena for its own threads: a build of 12,000 vertices left 490 MiB resident, of which
/// 24 were in use.
#[cfg(target_env = "gnu")]
pub fn give_back() {
    // SAFETY: the function frees pages that hold nothing, under the allocator's locks.
    #[allow(unsafe_code)]
    let _ = unsafe { libc::malloc_trim(0) };
}

/// Other allocators do it by themselves.
#[cfg(not(target_env = "gnu"))]
pub fn give_back() {}
