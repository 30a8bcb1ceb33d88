/* storm A B: exchanges two names as fast as it can, until one of them is gone or standard input ends; says how often. */
#define _GNU_SOURCE
#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <stdio.h>
#include <sys/syscall.h>
#include <unistd.h>

int main(int argc, char **argv)
{
	long times = 0;
	struct pollfd input = { 0, POLLIN, 0 };
	if (argc != 3)
		return 2;
	printf("storm\n");
	fflush(stdout);
	while (poll(&input, 1, 0) == 0) {
		for (int i = 0; i < 64; i++) {
			/* RENAME_EXCHANGE */
			if (syscall(SYS_renameat2, AT_FDCWD, argv[1], AT_FDCWD, argv[2], 2) == 0)
				times++;
		}
		if (access(argv[1], F_OK) && errno == ENOENT && access(argv[2], F_OK) && errno == ENOENT && times > 0)
			break;
	}
	printf("times=%ld\n", times);
	return 0;
}
