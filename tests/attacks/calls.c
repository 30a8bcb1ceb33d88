/* Makes raw system calls and says what the kernel answers.
 *
 * Each line of standard input: NAME ABI NUMBER A0 A1 A2 A3 A4 A5 (ABI: native or i386; numbers in any base of C).
 * Each answer: NAME=ok, NAME=ERRNO, or NAME=killed SIGNAL. Each call is made by a process of its own, in a session of
 * its own, which has a second for it.
 */
#define _GNU_SOURCE
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

static long i386(long number, long a, long b, long c)
{
#ifdef __x86_64__
	long result;
	__asm__ volatile("int $0x80"
			 : "=a"(result)
			 : "a"(number), "b"(a), "c"(b), "d"(c)
			 : "memory", "r8", "r9", "r10", "r11");
	if ((int)result < 0) {
		errno = -(int)result;
		return -1;
	}
	return result;
#else
	(void)number, (void)a, (void)b, (void)c;
	errno = ENOSYS;
	return -1;
#endif
}

int main(void)
{
	char name[64], abi[16];
	unsigned long long v[7];
	/* SHARED: the child's answer. */
	volatile int *answer = mmap(NULL, 4096, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
	while (scanf("%63s %15s %lli %lli %lli %lli %lli %lli %lli", name, abi, (long long *)&v[0], (long long *)&v[1],
		     (long long *)&v[2], (long long *)&v[3], (long long *)&v[4], (long long *)&v[5],
		     (long long *)&v[6]) == 9) {
		*answer = -1;
		fflush(stdout);
		pid_t child = fork();
		if (child < 0)
			return 2;
		if (child == 0) {
			long result;
			setsid();
			alarm(1);
			errno = 0;
			if (strcmp(abi, "i386") == 0)
				result = i386((long)v[0], (long)v[1], (long)v[2], (long)v[3]);
			else
				result = syscall((long)v[0], v[1], v[2], v[3], v[4], v[5], v[6]);
			*answer = result == -1 ? errno : 0;
			syscall(SYS_exit_group, 0);
		}
		int status;
		if (waitpid(child, &status, 0) != child)
			return 3;
		if (WIFSIGNALED(status))
			printf("%s=killed %d\n", name, WTERMSIG(status));
		else if (*answer == 0)
			printf("%s=ok\n", name);
		else
			printf("%s=%d\n", name, *answer);
	}
	return 0;
}
