// Sends a datagram and prints the answer: ask HOST:PORT TEXT.
package main

import (
	"fmt"
	"net"
	"os"
	"time"
)

func main() {
	connection, err := net.Dial("udp", os.Args[1])
	check(err)
	_, err = connection.Write([]byte(os.Args[2]))
	check(err)
	answer := make([]byte, 65535)
	connection.SetReadDeadline(time.Now().Add(20 * time.Second))
	size, err := connection.Read(answer)
	check(err)
	fmt.Println(string(answer[:size]))
}

func check(err error) {
	if err != nil {
		fmt.Println(err)
		os.Exit(1)
	}
}
