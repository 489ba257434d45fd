/* The floor: the least that a container of Dayfly's kind costs, in C, with no language, no log and no result.
 *
 * For each line on stdin it makes one container around /bin/true and answers with two numbers, nanoseconds:
 * "critical total". Critical: clone to exit seen. Total: also cgroups and upper made before and removed after.
 * Six namespaces (mount, pid, net, ipc, uts, cgroup), the cgroup controllers that Dayfly uses with a limit written
 * to each, an overlay with a fresh upper, /proc, pivot_root, exec, tear-down. No user namespace, seccomp,
 * capabilities, /dev, masks, quota on disk: what Dayfly does beyond this list is Dayfly's own cost.
 *
 * usage: floor ROOT STATE v1|v2
 */
#define _GNU_SOURCE
#include <errno.h>
#include <fcntl.h>
#include <linux/sched.h>
#include <sched.h>
#include <signal.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mount.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#define NAMESPACES (CLONE_NEWNS | CLONE_NEWPID | CLONE_NEWNET | CLONE_NEWIPC | CLONE_NEWUTS | CLONE_NEWCGROUP)
#define CLONE_INTO_CGROUP_FLAG 0x200000000ULL

struct limit { const char *controller, *file, *value; };
static const struct limit v1_limits[] = {
    {"cpu", "cpu.cfs_quota_us", "100000"}, {"cpuacct", NULL, NULL}, {"memory", "memory.limit_in_bytes", "1073741824"},
    {"pids", "pids.max", "2048"}, {"blkio", NULL, NULL},
};
static const struct limit v2_limits[] = {
    {"", "cpu.max", "100000 100000"}, {"", "memory.max", "1073741824"}, {"", "pids.max", "2048"},
};
#define V1 (sizeof v1_limits / sizeof v1_limits[0])
#define V2 (sizeof v2_limits / sizeof v2_limits[0])

static void die(const char *step, const char *on)
{
    fprintf(stderr, "floor: cannot %s %s: %s\n", step, on, strerror(errno));
    exit(1);
}

static void write_file(const char *path, const char *text)
{
    int fd = open(path, O_WRONLY | O_CLOEXEC);
    if (fd < 0 || write(fd, text, strlen(text)) < 0) die("write to", path);
    close(fd);
}

static void make_directory(const char *path)
{
    if (mkdir(path, 0755) && errno != EEXIST) die("make", path);
}

static uint64_t now(void)
{
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return (uint64_t)t.tv_sec * 1000000000 + t.tv_nsec;
}

static void child(const char *root, const char *state, int tasks[], int count)
{
    char options[3 * 512], merged[512];
    char *argv[] = {"/bin/true", NULL}, *envp[] = {NULL};
    for (int i = 0; i < count; i++)
        if (write(tasks[i], "0", 1) != 1) die("join", "cgroup");
    if (mount(NULL, "/", NULL, MS_REC | MS_PRIVATE, NULL)) die("make private", "/");
    snprintf(options, sizeof options, "lowerdir=%s,upperdir=%s/upper,workdir=%s/work", root, state, state);
    snprintf(merged, sizeof merged, "%s/merged", state);
    if (mount("overlay", merged, "overlay", 0, options)) die("mount overlay on", merged);
    if (chdir(merged)) die("enter", merged);
    if (mount("proc", "proc", "proc", MS_NOSUID | MS_NODEV | MS_NOEXEC, NULL)) die("mount", "proc");
    if (syscall(SYS_pivot_root, ".", ".")) die("pivot_root to", merged);
    if (umount2(".", MNT_DETACH) || chdir("/")) die("leave", "the old root");
    execve(argv[0], argv, envp);
    die("execute", argv[0]);
}

static void one_container(const char *root, const char *state, int is_v2)
{
    char path[1024], cgroups[V1][512];
    int tasks[V1], count = is_v2 ? 1 : V1, status;
    uint64_t begin = now(), cloned, ended;

    for (int i = 0; i < count; i++) {
        const char *controller = is_v2 ? "" : v1_limits[i].controller;
        snprintf(cgroups[i], sizeof cgroups[i], "/sys/fs/cgroup/%s%sdayfly-floor-%d", controller, *controller ? "/" : "", getpid());
        make_directory(cgroups[i]);
        snprintf(path, sizeof path, "%s/tasks", cgroups[i]);
        tasks[i] = is_v2 ? open(cgroups[i], O_RDONLY | O_DIRECTORY | O_CLOEXEC) : open(path, O_WRONLY | O_CLOEXEC);
        if (tasks[i] < 0) die("open", path);
    }
    const struct limit *limits = is_v2 ? v2_limits : v1_limits;
    for (size_t i = 0; i < (is_v2 ? V2 : V1); i++) {
        if (!limits[i].file) continue;
        snprintf(path, sizeof path, "%s/%s", cgroups[is_v2 ? 0 : i], limits[i].file);
        write_file(path, limits[i].value);
    }
    const char *directories[] = {"upper", "work", "merged"};
    for (int i = 0; i < 3; i++) {
        snprintf(path, sizeof path, "%s/%s", state, directories[i]);
        make_directory(path);
    }

    cloned = now();
    struct clone_args args = {.flags = NAMESPACES, .exit_signal = SIGCHLD};
    if (is_v2) { args.flags |= CLONE_INTO_CGROUP_FLAG; args.cgroup = tasks[0]; }
    pid_t pid = syscall(SYS_clone3, &args, sizeof args);
    if (pid < 0) die("clone", "the container");
    if (pid == 0) child(root, state, tasks, is_v2 ? 0 : count);
    if (waitpid(pid, &status, 0) < 0 || status) die("see exit 0 of", "/bin/true");
    ended = now();

    for (int i = 0; i < count; i++) {
        close(tasks[i]);
        if (rmdir(cgroups[i])) die("remove", cgroups[i]);
    }
    snprintf(path, sizeof path, "%s/work/work", state);
    rmdir(path);
    for (int i = 0; i < 3; i++) {
        snprintf(path, sizeof path, "%s/%s", state, directories[i]);
        if (rmdir(path)) die("remove", path);
    }
    printf("%llu %llu\n", (unsigned long long)(ended - cloned), (unsigned long long)(now() - begin));
    fflush(stdout);
}

int main(int argc, char **argv)
{
    char line[16];
    if (argc != 4) { fprintf(stderr, "usage: floor ROOT STATE v1|v2\n"); return 2; }
    while (fgets(line, sizeof line, stdin)) one_container(argv[1], argv[2], !strcmp(argv[3], "v2"));
    return 0;
}
