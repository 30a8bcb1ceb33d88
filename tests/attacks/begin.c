/* begin bare PROGRAM: executes it with no arguments at all, not even its name (CVE-2021-4034).
 * begin named NAME PROGRAM ARGUMENTS...: with another name.
 * begin crowded COUNT PROGRAM ARGUMENTS...: with COUNT variables more in its environment. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

extern char **environ;

int main(int argc, char **argv)
{
	if (argc == 3 && strcmp(argv[1], "bare") == 0) {
		char *none[] = { NULL };
		execve(argv[2], none, environ);
	} else if (argc > 3 && strcmp(argv[1], "named") == 0) {
		char *program = argv[3];
		argv[3] = argv[2];
		execv(program, argv + 3);
	} else if (argc > 3 && strcmp(argv[1], "crowded") == 0) {
		char name[32];
		for (long i = atol(argv[2]); i > 0; i--) {
			snprintf(name, sizeof name, "V%ld", i);
			setenv(name, "x", 1);
		}
		execv(argv[3], argv + 3);
	}
	perror("begin");
	return 126;
}
