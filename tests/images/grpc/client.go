// Calls a Greeter by grpc-go, in every way, and prints what came of each as JSON: client HOST:PORT [plain].
package main

import (
	"bytes"
	"context"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"io"
	"log"
	"os"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/credentials"
	"google.golang.org/grpc/credentials/insecure"
	"google.golang.org/grpc/encoding/gzip"
	health "google.golang.org/grpc/health/grpc_health_v1"
	"google.golang.org/grpc/metadata"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/proto"

	"greet/greet"
)

var all = context.Background()
var stub greet.GreeterClient

// Names of the codes as gRPC's other implementations have them.
var names = map[codes.Code]string{
	codes.OK: "OK", codes.Canceled: "CANCELLED", codes.NotFound: "NOT_FOUND",
	codes.DeadlineExceeded: "DEADLINE_EXCEEDED", codes.ResourceExhausted: "RESOURCE_EXHAUSTED",
}

func name(err error) string {
	code := status.Code(err)
	if text, known := names[code]; known {
		return text
	}
	return code.String()
}

func must(err error) {
	if err != nil {
		log.Fatal(err)
	}
}

func unary() []string {
	ctx := metadata.AppendToOutgoingContext(all, "x-token", "abc", "x-in-bin", "\xff\x00")
	var initial, trailing metadata.MD
	reply, err := stub.Unary(ctx, &greet.Hello{Name: "you"}, grpc.Header(&initial), grpc.Trailer(&trailing))
	must(err)
	raw := hex.EncodeToString([]byte(initial["x-raw-bin"][0]))
	return []string{reply.Text, initial["x-initial"][0], raw, trailing["x-trailing"][0]}
}

func down(count int32) []string {
	stream, err := stub.Down(all, &greet.Hello{Count: count})
	must(err)
	var texts []string
	for {
		reply, err := stream.Recv()
		if err == io.EOF {
			return texts
		}
		must(err)
		texts = append(texts, reply.Text)
	}
}

func up() string {
	stream, err := stub.Up(all)
	must(err)
	for _, each := range []string{"a", "b", "c"} {
		must(stream.Send(&greet.Hello{Name: each}))
	}
	reply, err := stream.CloseAndRecv()
	must(err)
	return reply.Text
}

func both() []string {
	stream, err := stub.Both(all)
	must(err)
	var texts []string
	for _, each := range []string{"one", "two"} {
		must(stream.Send(&greet.Hello{Name: each}))
		reply, err := stream.Recv()
		must(err)
		texts = append(texts, reply.Text)
	}
	must(stream.CloseSend())
	_, err = stream.Recv()
	if err != io.EOF {
		log.Fatal(err)
	}
	return texts
}

func cancel() string {
	ctx, stop := context.WithCancel(all)
	stream, err := stub.Down(ctx, &greet.Hello{Name: "endless", Count: 1000000000})
	must(err)
	_, err = stream.Recv()
	must(err)
	stop()
	for err == nil {
		_, err = stream.Recv()
	}
	return name(err)
}

func rich() []any {
	_, err := stub.Unary(all, &greet.Hello{Name: "rich"})
	details, failure := proto.Marshal(status.Convert(err).Proto())
	must(failure)
	return []any{name(err), bytes.Contains(details, []byte("too much"))}
}

func main() {
	transport := credentials.NewTLS(nil)
	if len(os.Args) > 2 {
		transport = insecure.NewCredentials()
	}
	channel, err := grpc.NewClient(os.Args[1], grpc.WithTransportCredentials(transport))
	must(err)
	stub = greet.NewGreeterClient(channel)
	big := &greet.Hello{Blob: make([]byte, 3000000)}
	_, aborted := stub.Unary(all, &greet.Hello{Name: "abort"})
	soon, stop := context.WithTimeout(all, 500*time.Millisecond)
	defer stop()
	results := map[string]any{
		"unary": unary(),
		"down":  down(3),
		"up":    up(),
		"both":  both(),
		"abort": []string{name(aborted), status.Convert(aborted).Message()},
		"rich":  rich(),
		"cancel": cancel(),
	}
	_, late := stub.Unary(soon, &greet.Hello{Name: "slow"})
	results["deadline"] = name(late)
	reply, err := stub.Unary(all, big)
	must(err)
	results["big"] = len(reply.Blob)
	reply, err = stub.Unary(all, big, grpc.UseCompressor(gzip.Name))
	must(err)
	results["gzip"] = len(reply.Blob)
	_, large := stub.Unary(all, &greet.Hello{Blob: make([]byte, 5000000)})
	results["too big"] = name(large)
	checked, err := health.NewHealthClient(channel).Check(all, &health.HealthCheckRequest{})
	must(err)
	results["health"] = int(checked.Status)
	text, err := json.Marshal(results)
	must(err)
	fmt.Println(string(text))
}
