/* A user's process that tries to get at a launcher while it becomes that user.
 *
 * attack hunt NAME: looks for processes called NAME (as /proc/PID/stat has it) until standard input ends. To each whose
 * effective uid is ours, or whose real one is not, it does what its owner could: signals, ptrace, prlimit, the files of
 * /proc/PID. What counts is what was done while the process still was the launcher: its name is read again afterwards.
 * Prints every success as `breach KIND: WHAT`, and at last how many attempts met which kind of process:
 *   worn      effective uid is ours, real or saved uid is not: the launcher with our rights over files
 *   become    all are ours, the name still is the launcher's: only tracing and /proc count, the rest is its owner's right
 *   other     none is ours: the supervisor
 *
 * Signals that could end a process go to those alone that are not ours at all: the kernel's check is the same for each
 * signal, and what is wholly ours may be ended by us.
 *
 * attack once PID: one attempt of each kind; NAME=ok or NAME=ERRNO. attack read PID: no signals.
 */
#define _GNU_SOURCE
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ptrace.h>
#include <sys/resource.h>
#include <sys/syscall.h>
#include <sys/uio.h>
#include <sys/wait.h>
#include <unistd.h>

enum { SIGNALS = 5, DEADLY = 2, FILES = 8 };
static const int signals[SIGNALS] = { SIGKILL, SIGTERM, SIGSTOP, SIGCONT, 0 };
static const char *const files[FILES] = { "fd", "environ", "mem", "maps", "cwd", "root", "exe", "auxv" };
/* What was tried: indices of the above, then ptrace, prlimit, process_vm_readv, pidfd_getfd. */
enum { PTRACE = SIGNALS + FILES, PRLIMIT, VM, GETFD, ALL };

static const char *name_of(int what)
{
	static const char *const names[] = { "kill", "term", "stop", "cont", "null" };
	static const char *const rest[] = { "ptrace", "prlimit", "process_vm_readv", "pidfd_getfd" };
	return what < SIGNALS ? names[what] : what < PTRACE ? files[what - SIGNALS] : rest[what - PTRACE];
}

/* 0 if it worked, else errno. */
static int try(pid_t pid, int what)
{
	char path[64], byte[16];
	errno = 0;
	if (what < SIGNALS)
		return kill(pid, signals[what]) ? errno : 0;
	if (what < PTRACE) {
		snprintf(path, sizeof path, "/proc/%d/%s", pid, files[what - SIGNALS]);
		if (what - SIGNALS == 0) {
			DIR *dir = opendir(path);
			if (dir == NULL)
				return errno;
			closedir(dir);
			return 0;
		}
		if (what - SIGNALS >= 4 && what - SIGNALS <= 6)
			return readlink(path, byte, sizeof byte) < 0 ? errno : 0;
		int fd = open(path, O_RDONLY);
		if (fd < 0)
			return errno;
		/* environ and maps are asked at open, and an undumpable process' memory reads as nothing. */
		ssize_t got = pread(fd, byte, sizeof byte, 0);
		int error = got > 0 ? 0 : got < 0 ? errno : ENODATA;
		close(fd);
		return error;
	}
	switch (what) {
	case PTRACE:
		if (ptrace(PTRACE_SEIZE, pid, NULL, NULL))
			return errno;
		/* Only a stopped one can be let go. */
		if (ptrace(PTRACE_INTERRUPT, pid, NULL, NULL) == 0)
			waitpid(pid, NULL, __WALL);
		ptrace(PTRACE_DETACH, pid, NULL, NULL);
		return 0;
	case PRLIMIT: {
		/* The kernel's check is the same for reading and writing. */
		struct rlimit limit;
		return prlimit(pid, RLIMIT_NOFILE, NULL, &limit) ? errno : 0;
	}
	case VM: {
		struct iovec local = { byte, 1 }, remote = { (void *)&signals, 1 };
		return process_vm_readv(pid, &local, 1, &remote, 1, 0) < 0 ? errno : 0;
	}
	default: {
		int pidfd = (int)syscall(SYS_pidfd_open, pid, 0);
		if (pidfd < 0)
			return errno;
		int fd = (int)syscall(SYS_pidfd_getfd, pidfd, 0, 0);
		int error = fd < 0 ? errno : 0;
		if (fd >= 0)
			close(fd);
		close(pidfd);
		return error;
	}
	}
}

struct seen {
	char name[32];
	unsigned real, effective, saved;
	/* In how many pid namespaces it has a number. */
	int depth;
};

static int look(pid_t pid, struct seen *seen)
{
	char path[64], line[256];
	int found = 0;
	seen->depth = 0;
	snprintf(path, sizeof path, "/proc/%d/status", pid);
	FILE *file = fopen(path, "re");
	if (file == NULL)
		return 0;
	while (fgets(line, sizeof line, file)) {
		if (strncmp(line, "NSpid:", 6) == 0)
			for (char *tab = line; (tab = strchr(tab, '\t')) != NULL; tab++)
				seen->depth++;
		found += sscanf(line, "Name: %31s", seen->name) == 1;
		found += sscanf(line, "Uid: %u %u %u", &seen->real, &seen->effective, &seen->saved) == 3;
	}
	fclose(file);
	return found == 2;
}

enum kind { WORN, BECOME, OTHER };
static const char *const kinds[] = { "worn", "become", "other" };

static enum kind kind_of(const struct seen *seen)
{
	unsigned own = getuid();
	if (seen->effective != own)
		return OTHER;
	return seen->real == own && seen->saved == own ? BECOME : WORN;
}

int main(int argc, char **argv)
{
	long met[3] = { 0 };
	if (argc == 3 && (strcmp(argv[1], "once") == 0 || strcmp(argv[1], "read") == 0)) {
		for (int what = strcmp(argv[1], "read") ? 0 : SIGNALS; what < ALL; what++) {
			int error = try(atoi(argv[2]), what);
			if (error)
				printf("%s=%d\n", name_of(what), error);
			else
				printf("%s=ok\n", name_of(what));
		}
		return 0;
	}
	if (argc != 3 || strcmp(argv[1], "hunt"))
		return 2;
	/* /proc/PID/stat's name has 15 bytes. */
	argv[2][strlen(argv[2]) > 15 ? 15 : strlen(argv[2])] = 0;
	printf("hunting\n");
	fflush(stdout);
	struct pollfd input = { 0, POLLIN, 0 };
	int turn = 0;
	while (poll(&input, 1, 0) == 0) {
		DIR *proc = opendir("/proc");
		struct dirent *entry;
		while ((entry = readdir(proc)) != NULL) {
			pid_t pid = atoi(entry->d_name);
			struct seen before, after;
			if (pid <= 0 || !look(pid, &before) || strcmp(before.name, argv[2]))
				continue;
			/* Started by us ourselves, in no namespace of its own: ours to trace, and powerless. */
			if (kind_of(&before) == BECOME && before.depth < 2)
				continue;
			/* As long as it stays what it is. */
			for (int rounds = 0; rounds < 200; rounds++) {
				int what = turn++ % ALL;
				enum kind kind = kind_of(&before);
				/* A process that is wholly ours may be signalled and limited by us. */
				if (kind == BECOME && (what < SIGNALS || what == PRLIMIT))
					continue;
				if (kind != OTHER && what < DEADLY)
					continue;
				int error = try(pid, what);
				int same = look(pid, &after) && strcmp(after.name, argv[2]) == 0 && kind_of(&after) == kind;
				if (error == 0 && same)
					printf("breach %s: %s\n", kinds[kind], name_of(what));
				if (error == 0 && what < SIGNALS && signals[what] == SIGSTOP)
					kill(pid, SIGCONT);
				if (!same)
					break;
				met[kind]++;
				/* Of the others one round of each is enough: the worn one is short-lived. */
				if (kind != WORN && rounds >= ALL)
					break;
			}
		}
		closedir(proc);
	}
	printf("worn=%ld\nbecome=%ld\nother=%ld\n", met[WORN], met[BECOME], met[OTHER]);
	return 0;
}
