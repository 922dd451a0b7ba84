// Prints what a host answers: client [-clear] HOST. With -clear it has no environment.
//
// client -report NAME=URL... prints a line for each URL, with its answer or the error.
package main

import (
	"fmt"
	"io"
	"net/http"
	"os"
	"runtime"
	"strings"
	"time"
)

func main() {
	if os.Args[1] == "-report" {
		report(os.Args[2:])
		return
	}
	if os.Args[1] == "-clear" {
		os.Clearenv()
	}
	answer, err := http.Get("https://" + os.Args[len(os.Args)-1] + "/greeting")
	if err != nil {
		fmt.Fprintln(os.Stderr, runtime.Version(), err)
		os.Exit(1)
	}
	body, _ := io.ReadAll(answer.Body)
	fmt.Println(string(body))
}

func report(arguments []string) {
	client := http.Client{Timeout: 2 * time.Second}
	for _, argument := range arguments {
		name, url, _ := strings.Cut(argument, "=")
		fmt.Printf("%s\t%s\n", name, get(&client, url))
	}
}

func get(client *http.Client, url string) string {
	answer, err := client.Get(url)
	if err != nil {
		return err.Error()
	}
	defer answer.Body.Close()
	body, err := io.ReadAll(answer.Body)
	if err != nil {
		return fmt.Sprintf("%d, then %v", answer.StatusCode, err)
	}
	return fmt.Sprintf("%d %s", answer.StatusCode, body)
}
