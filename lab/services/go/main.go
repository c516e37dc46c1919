// A vulnerable service on net/http: one goroutine a connection, on whatever thread runs it.
package main

import (
	"fmt"
	"io"
	"log"
	"net"
	"net/http"
	"net/url"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"text/template"
	"time"
)

var (
	directory = os.Getenv("DIR")
	number    = regexp.MustCompile(`^[0-9]+$`)
	client    = http.Client{Transport: &http.Transport{}, Timeout: 10 * time.Second}
)

func main() {
	http.HandleFunc("/orders", orders)
	http.HandleFunc("/ping", ping)
	http.HandleFunc("/render", render)
	http.HandleFunc("/fetch", fetch)
	http.HandleFunc("/file", file)
	http.HandleFunc("/upload", upload)
	http.HandleFunc("/uploads/", plugin)
	http.HandleFunc("/convert", convert)
	http.HandleFunc("/later", later)
	address := net.JoinHostPort("127.0.0.1", os.Getenv("PORT"))
	if certificate := os.Getenv("CERTIFICATE"); certificate != "" {
		log.Fatal(http.ListenAndServeTLS(address, certificate, os.Getenv("KEY"), nil))
	}
	log.Fatal(http.ListenAndServe(address, nil))
}

func text(w http.ResponseWriter, status int, body []byte) {
	w.Header().Set("Content-Type", "text/plain")
	w.WriteHeader(status)
	w.Write(body)
}

// parameter reads a value that may have come backwards.
func parameter(query url.Values, name string) string {
	value := []rune(query.Get(name))
	if query.Get("r") != "1" {
		return query.Get(name)
	}
	for i, j := 0, len(value)-1; i < j; i, j = i+1, j-1 {
		value[i], value[j] = value[j], value[i]
	}
	return string(value)
}

func orders(w http.ResponseWriter, r *http.Request) {
	time.Sleep(4 * time.Millisecond)
	text(w, 200, []byte("orders "+r.URL.Query().Get("n")+"\n"))
}

func ping(w http.ResponseWriter, r *http.Request) {
	host := parameter(r.URL.Query(), "host")
	output, _ := exec.Command("sh", "-c", "echo ping "+host).Output()
	text(w, 200, output)
}

func render(w http.ResponseWriter, r *http.Request) {
	functions := template.FuncMap{"run": run, "upper": strings.ToUpper}
	parsed, err := template.New("").Funcs(functions).Parse(parameter(r.URL.Query(), "tpl"))
	if err != nil {
		text(w, 200, []byte(err.Error()+"\n"))
		return
	}
	var body strings.Builder
	if err := parsed.Execute(&body, nil); err != nil {
		fmt.Fprintln(&body, err)
	}
	text(w, 200, []byte(body.String()))
}

func run(program string, arguments ...string) (string, error) {
	output, err := exec.Command(program, arguments...).Output()
	return string(output), err
}

func fetch(w http.ResponseWriter, r *http.Request) {
	response, err := client.Get(r.URL.Query().Get("url"))
	if err != nil {
		text(w, 502, []byte("no answer\n"))
		return
	}
	defer response.Body.Close()
	body, err := io.ReadAll(response.Body)
	if err != nil || response.StatusCode != 200 {
		text(w, 502, []byte("no answer\n"))
		return
	}
	text(w, 200, body)
}

func file(w http.ResponseWriter, r *http.Request) {
	body, err := os.ReadFile(directory + "/public/" + r.URL.Query().Get("path"))
	if err != nil {
		text(w, 404, []byte("not found\n"))
		return
	}
	text(w, 200, body)
}

func uploaded(name string) string {
	return filepath.Join(directory, "uploads", filepath.Base(name))
}

func upload(w http.ResponseWriter, r *http.Request) {
	body, err := io.ReadAll(r.Body)
	if err == nil {
		err = os.WriteFile(uploaded(r.URL.Query().Get("name")), body, 0o755)
	}
	if err != nil {
		text(w, 500, []byte("cannot store\n"))
		return
	}
	text(w, 200, []byte("stored\n"))
}

func plugin(w http.ResponseWriter, r *http.Request) {
	output, _ := exec.Command(uploaded(r.URL.Path), r.URL.Query().Get("cmd")).Output()
	text(w, 200, output)
}

func convert(w http.ResponseWriter, r *http.Request) {
	value := r.URL.Query().Get("text")
	if !number.MatchString(value) {
		text(w, 200, []byte("not a number\n"))
		return
	}
	output, _ := exec.Command("/usr/bin/factor", value).Output()
	text(w, 200, output)
}

func later(w http.ResponseWriter, r *http.Request) {
	command := r.URL.Query().Get("cmd")
	go func() {
		time.Sleep(2 * time.Second)
		exec.Command("sh", "-c", command).Run()
	}()
	text(w, 200, []byte("later\n"))
}
