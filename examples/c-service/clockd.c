/* clockd: answers each connection on port 8080 with the time of day, as HTTP. */
#include <arpa/inet.h>
#include <netinet/in.h>
#include <stdio.h>
#include <string.h>
#include <sys/socket.h>
#include <time.h>
#include <unistd.h>

static int answer(char *text, size_t size, time_t now)
{
	char clock[64];
	struct tm parts;

	if (!gmtime_r(&now, &parts) || !strftime(clock, sizeof clock, "%Y-%m-%dT%H:%M:%SZ\n", &parts))
		return -1;
	return snprintf(text, size,
			"HTTP/1.0 200 OK\r\nContent-Type: text/plain\r\nContent-Length: %zu\r\n\r\n%s",
			strlen(clock), clock);
}

int main(int argc, char **argv)
{
	char text[256];

	if (argc > 1 && strcmp(argv[1], "--self-test") == 0) {
		if (answer(text, sizeof text, 0) < 0 || !strstr(text, "1970-01-01T00:00:00Z"))
			return 1;
		puts("clockd: self-test passed");
		return 0;
	}

	struct sockaddr_in address = { .sin_family = AF_INET, .sin_port = htons(8080) };
	int one = 1, listener = socket(AF_INET, SOCK_STREAM, 0);

	setsockopt(listener, SOL_SOCKET, SO_REUSEADDR, &one, sizeof one);
	if (listener < 0 || bind(listener, (struct sockaddr *)&address, sizeof address) || listen(listener, 16)) {
		perror("clockd");
		return 1;
	}
	for (;;) {
		int peer = accept(listener, NULL, NULL);
		int length = answer(text, sizeof text, time(NULL));

		if (peer < 0)
			continue;
		if (length > 0 && write(peer, text, (size_t)length) != length)
			perror("clockd: write");
		close(peer);
	}
}
