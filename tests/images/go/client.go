// Prints what a host answers: client [-clear] HOST. With -clear it has no environment.
package main

import (
	"fmt"
	"io"
	"net/http"
	"os"
	"runtime"
)

func main() {
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
