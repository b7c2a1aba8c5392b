// Command oracle asks kube-scheduler's own PreFilter and Filter plugins for their verdicts.
//
// Each line of standard input is one Case (JSON), each line of standard output its Answer, in the same order. The
// process lives for many cases: the plugins are built once and see each case's objects through informers and a
// snapshot that are exchanged between cases, so a verdict costs microseconds and not the milliseconds of a start.
package main

import (
	"bufio"
	"context"
	"fmt"
	"io"
	"os"

	"k8s.io/apimachinery/pkg/util/json"
	"k8s.io/klog/v2"
)

func main() {
	klog.SetLogger(klog.Background().V(0))
	engine, err := newEngine(context.Background())
	if err == nil {
		err = serve(engine, os.Stdin, os.Stdout)
	}
	if err != nil {
		fmt.Fprintln(os.Stderr, "oracle:", err)
		os.Exit(1)
	}
}

// serve answers every line until the input ends; a case that cannot be read or judged is answered with its error.
func serve(engine *engine, input io.Reader, output io.Writer) error {
	reader := bufio.NewReaderSize(input, 1<<20)
	writer := bufio.NewWriterSize(output, 1<<20)
	for {
		line, err := reader.ReadBytes('\n')
		if len(line) > 1 {
			if err := write(writer, answer(engine, line)); err != nil {
				return err
			}
			// More input is already here: the asker sends in bulk and does not wait for this answer alone.
			if reader.Buffered() == 0 {
				if err := writer.Flush(); err != nil {
					return err
				}
			}
		}
		if err == io.EOF {
			return writer.Flush()
		}
		if err != nil {
			return err
		}
	}
}

func answer(engine *engine, line []byte) (result *Answer) {
	var request Case
	defer func() {
		// A plugin that panics on a hostile object must not end the run; the asker sees which case it was.
		if problem := recover(); problem != nil {
			result = &Answer{ID: request.ID, Error: fmt.Sprintf("panic: %v", problem)}
		}
	}()
	if err := json.Unmarshal(line, &request); err != nil {
		return &Answer{ID: request.ID, Error: err.Error()}
	}
	return engine.judge(&request)
}

func write(writer *bufio.Writer, answer *Answer) error {
	line, err := json.Marshal(answer)
	if err != nil {
		return err
	}
	if _, err := writer.Write(line); err != nil {
		return err
	}
	return writer.WriteByte('\n')
}
