/* Does what HPC software does and container runtimes' filters break; says for each what the kernel answered. */
#define _GNU_SOURCE
#include <errno.h>
#include <fcntl.h>
#include <linux/perf_event.h>
#include <linux/sched.h>
#include <sched.h>
#include <signal.h>
#include <stdint.h>
#include <stdio.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/mount.h>
#include <sys/personality.h>
#include <sys/ptrace.h>
#include <sys/syscall.h>
#include <sys/uio.h>
#include <sys/wait.h>
#include <unistd.h>

static void say(const char *name, long result)
{
	if (result < 0)
		printf("%s=%d\n", name, errno);
	else
		printf("%s=ok\n", name);
	fflush(stdout);
}

/* In a process of its own: the exit status is the errno. */
static void apart(const char *name, long (*act)(void))
{
	pid_t child = fork();
	int status;
	if (child == 0) {
		alarm(5);
		errno = 0;
		_exit(act() < 0 ? errno : 0);
	}
	if (child < 0 || waitpid(child, &status, 0) != child)
		errno = EIO, say(name, -1);
	else if (WIFSIGNALED(status))
		printf("%s=killed %d\n", name, WTERMSIG(status));
	else
		errno = WEXITSTATUS(status), say(name, errno ? -1 : 0);
	fflush(stdout);
}

static long new_user(void) { return unshare(CLONE_NEWUSER); }

static long new_mounts(void)
{
	return unshare(CLONE_NEWUSER | CLONE_NEWNS) || mount("none", "/", NULL, MS_REC | MS_PRIVATE, NULL) ||
			       mount("tmpfs", "/tmp", "tmpfs", 0, NULL)
		       ? -1
		       : 0;
}

static long thread_like(void)
{
	struct clone_args args;
	memset(&args, 0, sizeof args);
	args.exit_signal = SIGCHLD;
	long child = syscall(SYS_clone3, &args, sizeof args);
	if (child == 0)
		_exit(0);
	return child < 0 ? -1 : waitpid((pid_t)child, NULL, 0);
}

static long debugger(void)
{
	pid_t child = fork();
	int status;
	if (child == 0) {
		pause();
		_exit(0);
	}
	if (ptrace(PTRACE_SEIZE, child, NULL, NULL) || ptrace(PTRACE_INTERRUPT, child, NULL, NULL) ||
	    waitpid(child, &status, __WALL) != child || ptrace(PTRACE_PEEKDATA, child, (void *)&debugger, NULL) == -1)
		return -1;
	return kill(child, SIGKILL);
}

static long shared_memory_copy(void)
{
	static char here[16] = "peer", there[16];
	pid_t child = fork();
	if (child == 0) {
		pause();
		_exit(0);
	}
	struct iovec local = { there, 5 }, remote = { here, 5 };
	long result = process_vm_readv(child, &local, 1, &remote, 1, 0);
	int saved = errno;
	kill(child, SIGKILL);
	waitpid(child, NULL, 0);
	errno = saved;
	return result;
}

static long performance_counter(void)
{
	struct perf_event_attr attr;
	memset(&attr, 0, sizeof attr);
	attr.type = PERF_TYPE_SOFTWARE;
	attr.size = sizeof attr;
	attr.config = PERF_COUNT_SW_TASK_CLOCK;
	attr.exclude_kernel = attr.exclude_hv = 1;
	return syscall(SYS_perf_event_open, &attr, 0, -1, -1, 0);
}

int main(void)
{
	unsigned long node = 1;
	int policy;
	void *page = mmap(NULL, 4096, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
	cpu_set_t cpus;
	int status, pipes[2];
	*(volatile char *)page = 1;
	apart("clone3", thread_like);
	apart("unshare-user", new_user);
	apart("unshare-mounts", new_mounts);
	apart("debugger", debugger);
	apart("process_vm_readv", shared_memory_copy);
	apart("perf_event_open", performance_counter);
	say("mbind", syscall(SYS_mbind, page, 4096, 1, &node, 8, 0));
	say("set_mempolicy", syscall(SYS_set_mempolicy, 0, NULL, 0));
	say("get_mempolicy", syscall(SYS_get_mempolicy, &policy, NULL, 0, NULL, 0));
	say("move_pages", syscall(SYS_move_pages, 0, 1, &page, NULL, &status, 0));
	say("migrate_pages", syscall(SYS_migrate_pages, 0, 8, &node, &node));
	say("sched_setaffinity", sched_getaffinity(0, sizeof cpus, &cpus) || sched_setaffinity(0, sizeof cpus, &cpus) ? -1 : 0);
	say("userfaultfd", syscall(SYS_userfaultfd, O_CLOEXEC | 1));
	say("keyctl", syscall(SYS_keyctl, 0, -3, 1));
	say("add_key", syscall(SYS_add_key, "user", "jacamar-test", "x", 1, -2));
	say("personality", personality(ADDR_NO_RANDOMIZE));
	say("quotactl", syscall(SYS_quotactl, -1, "/nowhere", 0, NULL));
	say("kcmp", syscall(SYS_kcmp, getpid(), getpid(), 0, 0, 1));
	say("adjtimex", syscall(SYS_adjtimex, NULL));
	say("memfd_create", syscall(SYS_memfd_create, "x", 0));
	say("vmsplice", pipe(pipes) ? -1 : syscall(SYS_vmsplice, pipes[1], &(struct iovec){ page, 16 }, 1, 0));
	return 0;
}
